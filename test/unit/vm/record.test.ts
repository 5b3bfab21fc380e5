import { mkdir, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { StateDirError } from '../../../src/errors.ts';
import {
  parseRecord,
  readAllRecords,
  readRecord,
  writeRecord,
  type VmRecord,
} from '../../../src/vm/record.ts';
import { STATE_SCHEMA } from '../../../src/vm/state-dir.ts';
import { vmPaths } from '../../../src/vm/vm-paths.ts';

const record: VmRecord = {
  schema: STATE_SCHEMA,
  id: '0123456789ab',
  name: 'box',
  createdAt: '2026-01-02T03:04:05.678Z',
  config: {
    image: 'base',
    imageId: 'abc',
    rootfsPath: '/img/rootfs.qcow2',
    vcpus: 1,
    memoryMib: 512,
    diskBytes: 2 ** 30,
    accel: 'auto',
    machine: 'q35',
    channel: 'virtio-serial',
    hostname: 'box',
    kernelArgs: [],
    qemuPath: 'qemu-system-x86_64',
    persistent: true,
  },
  state: 'running',
};
const text = JSON.stringify(record);
const starter = { pid: 10, startTicks: 10, bootId: 'b' };
const run = { starter, startedAt: 't', accel: 'tcg', ports: 4 } as const;

describe('parseRecord', () => {
  it('gives back what was written', () => {
    expect(parseRecord(text, 'vm.json')).toEqual(record);
  });

  it('knows where the memory of a suspended VM is', () => {
    const suspended = { name: 'saved-0123abcd' };
    const saved = JSON.stringify({ ...record, state: 'suspended', run, suspended });
    expect(parseRecord(saved, 'vm.json').suspended).toEqual(suspended);
  });

  it.each([
    ['nothing', ''],
    ['half a record', text.slice(0, 100)],
    ['null', 'null'],
    ['a list', '[]'],
    ['a number', '7'],
    ['no schema', JSON.stringify({ ...record, schema: undefined })],
    ['a schema that is none', JSON.stringify({ ...record, schema: 'one' })],
    ['schema 0', JSON.stringify({ ...record, schema: 0 })],
    ['no id', JSON.stringify({ ...record, id: undefined })],
    ['an id that leads elsewhere', JSON.stringify({ ...record, id: '../../../etc' })],
    ['an id that is no text', JSON.stringify({ ...record, id: 12 })],
    ['no config', JSON.stringify({ ...record, config: undefined })],
    ['a config of another kind', JSON.stringify({ ...record, config: 'x' })],
    ['no state', JSON.stringify({ ...record, state: undefined })],
    ['a state of another kind', JSON.stringify({ ...record, state: 1 })],
    ['a suspended one without its memory', JSON.stringify({ ...record, state: 'suspended' })],
    [
      'a suspended one whose memory is elsewhere',
      JSON.stringify({ ...record, state: 'suspended', run, suspended: { name: '../x' } }),
    ],
    ['an owner that is none', JSON.stringify({ ...record, owner: { pid: 'x' } })],
    ['a run that is none', JSON.stringify({ ...record, run: { qemu: 5 } })],
  ])('refuses %s', (_what, bad) => {
    expect(() => parseRecord(bad, '/vms/x/vm.json')).toThrow(StateDirError);
    expect(() => parseRecord(bad, '/vms/x/vm.json')).toThrow(
      expect.objectContaining({
        code: 'ERR_STATE_DIR',
        path: '/vms/x/vm.json',
        hint: expect.stringContaining('gc'),
      }) as Error,
    );
  });

  it('leaves a record of a later version alone, whatever else it holds', () => {
    const later = JSON.stringify({ schema: STATE_SCHEMA + 1, what: 'ever' });
    expect(() => parseRecord(later, '/vms/x/vm.json')).toThrow(/later version/);
    expect(() => parseRecord(later, '/vms/x/vm.json')).toThrow(
      expect.objectContaining({
        name: 'StateDirError',
        hint: expect.stringContaining('Upgrade'),
      }) as Error,
    );
  });
});

describe('records on disk', () => {
  let paths: { dataDir: string; runtimeDir: string; cacheDir: string };
  beforeEach(async () => {
    const dir = await mkdtemp(join(tmpdir(), 'qmp-agent-records-'));
    paths = { dataDir: dir, runtimeDir: join(dir, 'run'), cacheDir: join(dir, 'cache') };
  });
  afterEach(() => rm(paths.dataDir, { recursive: true }));

  const put = async (id: string, content: string | object): Promise<void> => {
    const files = vmPaths(paths, id);
    await mkdir(files.dir, { recursive: true });
    if (typeof content === 'string') await writeFile(files.recordPath, content);
    else await writeRecord(files, { ...record, id, ...content });
  };

  it('are listed oldest first, defects last, and other files are none', async () => {
    await put('aaaaaaaaaaaa', { createdAt: '2026-02-01T00:00:00.000Z' });
    await put('bbbbbbbbbbbb', { createdAt: '2026-01-01T00:00:00.000Z' });
    await put('cccccccccccc', '{');
    await put('dddddddddddd', JSON.stringify({ schema: 99 }));
    await mkdir(vmPaths(paths, 'eeeeeeeeeeee').dir); // nothing in it yet
    await mkdir(join(paths.dataDir, 'vms/not-an-id'));
    const entries = await readAllRecords(paths);
    expect(entries.map(({ id }) => id.slice(0, 1))).toEqual(['b', 'a', 'c', 'd']);
    expect(entries[2]).toMatchObject({ fromLaterVersion: false, defect: expect.any(String) });
    expect(entries[3]).toMatchObject({ fromLaterVersion: true, defect: expect.any(String) });
  });

  it('are undefined where there is none', async () => {
    expect(await readRecord(vmPaths(paths, record.id))).toBeUndefined();
    expect(await readAllRecords(paths)).toEqual([]);
  });

  it('are not read without end', async () => {
    await put(record.id, ' '.repeat(2 ** 20 + 1));
    await expect(readRecord(vmPaths(paths, record.id))).rejects.toThrow(/1048577 bytes/);
  });

  it('are written whole: no temporary file stays, also where it cannot be written', async () => {
    await put(record.id, {});
    const files = vmPaths(paths, record.id);
    expect(await readdir(files.dir)).toEqual(['vm.json']);
    await rm(files.recordPath);
    await mkdir(files.recordPath); // rename onto a directory fails
    await expect(writeRecord(files, record)).rejects.toBeInstanceOf(StateDirError);
    expect(await readdir(files.dir)).toEqual(['vm.json']);
  });
});
