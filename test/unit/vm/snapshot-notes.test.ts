import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { ConfigError, StateDirError } from '../../../src/errors.ts';
import {
  checkDescription,
  checkSnapshotName,
  defaultSnapshotName,
  describeSnapshots,
  notesOf,
  parseNotes,
  readNotes,
  writeNotes,
  type RawSnapshot,
} from '../../../src/vm/snapshot-notes.ts';

const raw = (name: string, sec: number): RawSnapshot => ({
  name,
  'vm-state-size': 1_000 + sec,
  'date-sec': sec,
  'date-nsec': 123_456_789,
});
const createdAt = '1970-01-01T00:00:05.123Z';

describe('names', () => {
  it.each(['a', 'before-test', 'v1.2_x', 'a'.repeat(63)])('%s is one', (name) => {
    expect(() => checkSnapshotName(name)).not.toThrow();
  });

  // QEMU would take a number for the id of a snapshot.
  it.each(['', '1', '12', '-x', '.x', 'a b', 'a/b', 'ä', 'a\n', 'a'.repeat(64)])(
    '%j is none',
    (name) => {
      expect(() => checkSnapshotName(name)).toThrow(ConfigError);
    },
  );

  it('are made from the time where none is given', () => {
    const name = defaultSnapshotName(new Date('2026-01-02T03:04:05.678Z'));
    expect(name).toBe('s20260102-030405-678');
    expect(() => checkSnapshotName(name)).not.toThrow();
  });
});

describe('descriptions', () => {
  it('are one line', () => {
    expect(() => checkDescription('vor dem Umbau, größer: "x" 🙂')).not.toThrow();
    expect(() => checkDescription('x'.repeat(256))).not.toThrow();
    for (const text of ['a\nb', 'a\u001b[31m', 'x'.repeat(257)])
      expect(() => checkDescription(text)).toThrow(ConfigError);
  });
});

describe('describeSnapshots', () => {
  it('gives what QEMU has, oldest first, with the descriptions that belong to them', () => {
    const notes = [{ name: 'old', createdAt, description: 'before' }];
    expect(describeSnapshots([raw('new', 9), raw('old', 5)], notes)).toEqual([
      { name: 'old', description: 'before', createdAt, sizeBytes: 1_005 },
      {
        name: 'new',
        description: undefined,
        createdAt: '1970-01-01T00:00:09.123Z',
        sizeBytes: 1_009,
      },
    ]);
  });

  it('drops descriptions of snapshots that are gone, or that another has taken the name of', () => {
    const notes = [
      { name: 'gone', createdAt, description: 'x' },
      { name: 'again', createdAt, description: 'of its predecessor' },
    ];
    const snapshots = describeSnapshots([raw('again', 6)], notes);
    expect(snapshots).toMatchObject([{ name: 'again', description: undefined }]);
    expect(notesOf(snapshots, notes)).toEqual([]);
  });

  it('keeps the notes of those that are there, whatever stands in them', () => {
    const notes = [
      { name: 'old', createdAt, busyChannels: [0] },
      { name: 'gone', createdAt, description: 'x' },
    ];
    const snapshots = describeSnapshots([raw('old', 5), raw('new', 9)], notes);
    expect(snapshots).toMatchObject([{ name: 'old' }, { name: 'new' }]);
    expect(notesOf(snapshots, notes)).toEqual([notes[0]]);
  });
});

describe('the file of descriptions', () => {
  const note = { name: 'a', createdAt, description: 'b' };

  it('is written whole and read back; none is none', async () => {
    const dir = await mkdtemp(join(tmpdir(), 'qa-notes-'));
    try {
      const path = join(dir, 'snapshots.json');
      expect(await readNotes(path)).toEqual([]);
      await writeNotes(path, [note]);
      expect(await readNotes(path)).toEqual([note]);
      expect(await readdir(dir)).toEqual(['snapshots.json']);
    } finally {
      await rm(dir, { recursive: true });
    }
  });

  it.each(['', '{', 'null', '[]', '7', '{"schema":1,"snapshots":{}}', '{"schema":1}'])(
    '%j says nothing',
    (text) => {
      expect(parseNotes(text, 'f')).toEqual([]);
    },
  );

  it('is read as far as it makes sense', () => {
    const busy = { name: 'c', createdAt, busyChannels: [0, 1] };
    const wrong = [
      null,
      7,
      { name: 'x' },
      { ...note, description: 1 },
      { ...busy, busyChannels: ['0'] },
    ];
    const text = JSON.stringify({ schema: 1, snapshots: [...wrong, note, busy] });
    expect(parseNotes(text, 'f')).toEqual([note, busy]);
  });

  it('of a later version is left alone', () => {
    expect(() => parseNotes('{"schema":2,"snapshots":[]}', 'f')).toThrow(StateDirError);
  });
});
