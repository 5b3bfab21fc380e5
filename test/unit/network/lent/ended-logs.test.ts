import { mkdtemp, readdir, rm, utimes, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import {
  beyondBounds,
  type EndedLoan,
  MAX_ENDED,
  MAX_ENDED_BYTES,
  MAX_ENDED_MS,
  noteEnd,
  removeEnded,
  sweepLogs,
  userOfEnded,
} from '../../../../src/network/lent/ended-logs.ts';

const NOW = 1_000 * MAX_ENDED_MS;
const users = new Set([7, 8]);
const goneOf = (...ended: EndedLoan[]) => beyondBounds(ended, { nowMs: NOW, users }).sort();
const one = (id: string, o: Partial<EndedLoan> = {}): EndedLoan => ({
  ...{ id, uid: 7, bytes: 1, endedAtMs: NOW },
  ...o,
});

describe('which logs of ended loans go', () => {
  it('none within the bounds', () => expect(goneOf(one('a'), one('b', { uid: 8 }))).toEqual([]));

  it('the oldest where one user has too many, and none of another’s', () => {
    const many = Array.from({ length: MAX_ENDED + 2 }, (_, n) =>
      one(`a${n}`, { endedAtMs: NOW - n }),
    );
    const other = one('b', { uid: 8, endedAtMs: NOW - 1e6 });
    expect(goneOf(other, ...many.reverse())).toEqual([`a${MAX_ENDED}`, `a${MAX_ENDED + 1}`]);
  });

  it('the oldest where those of one user are too large together', () => {
    const [half, third] = [MAX_ENDED_BYTES / 2, MAX_ENDED_BYTES / 3].map(Math.ceil);
    const old = one('old', { bytes: half!, endedAtMs: NOW - 2 });
    expect(goneOf(old, one('b', { bytes: third! }), one('c', { bytes: third! }))).toEqual(['old']);
    expect(goneOf(one('d', { bytes: MAX_ENDED_BYTES + 1 }))).toEqual(['d']);
  });

  it('what is too old, and what is of a user who has no taps', () => {
    expect(goneOf(one('a', { endedAtMs: NOW - MAX_ENDED_MS - 1 }), one('b', { uid: 9 }))).toEqual([
      'a',
      'b',
    ]);
  });
});

describe('the directory', () => {
  let dir: string;
  beforeEach(async () => {
    dir = await mkdtemp(join(tmpdir(), 'qa-ended-'));
  });
  afterEach(() => rm(dir, { recursive: true }));
  const put = async (...names: string[]) => {
    for (const name of names) await writeFile(join(dir, name), 'x');
  };
  const left = async () => (await readdir(dir)).sort();

  it('keeps what is noted until it is copied; without a log there is nothing to note', async () => {
    await put('aa.log', 'aa.log.1', 'bb.log.1');
    for (const id of ['aa', 'bb', 'cc']) await noteEnd(dir, id, 7);
    await sweepLogs(dir, { lent: [], users });
    expect(await left()).toEqual(['aa.ended', 'aa.log', 'aa.log.1', 'bb.ended', 'bb.log.1']);
    expect([await userOfEnded(dir, 'aa'), await userOfEnded(dir, 'cc')]).toEqual([7, undefined]);
    await removeEnded(dir, 'aa');
    expect(await left()).toEqual(['bb.ended', 'bb.log.1']);
  });

  it('keeps what is lent and what is none of this, and nothing that is nobody’s', async () => {
    const others = ['service.log', 'service.lock', 'aa.json', 'uid-7.sock'];
    await put(...others, 'aa.log', 'bb.log', 'bb.log.1', 'cc.log');
    await writeFile(join(dir, 'cc.ended'), ''); // of a disk that was full
    await writeFile(join(dir, 'dd.ended'), '9');
    await sweepLogs(dir, { lent: ['aa'], users });
    expect(await left()).toEqual([...others, 'aa.log'].sort());
  });

  it('goes by when a loan has ended', async () => {
    await put('aa.log', 'bb.log');
    for (const id of ['aa', 'bb']) await noteEnd(dir, id, 7);
    const old = new Date(Date.now() - MAX_ENDED_MS - 60_000);
    await utimes(join(dir, 'aa.ended'), old, old);
    await sweepLogs(dir, { lent: [], users });
    expect(await left()).toEqual(['bb.ended', 'bb.log']);
  });
});
