/** Checkpoints on disk: there as long as a record names them, whatever became of their makers. */
import { mkdir, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import {
  checkpointFiles,
  isOnCheckpoint,
  makeCheckpoint,
  removeUnusedCheckpoints,
} from '../../../src/vm/fork/checkpoint.ts';
import { removeVm } from '../../../src/vm/gc.ts';
import { ownIdentity } from '../../../src/vm/process-identity.ts';
import { writeRecord, type VmConfig, type VmRecord } from '../../../src/vm/record.ts';
import { ensureStateDirs, STATE_SCHEMA } from '../../../src/vm/state-dir.ts';
import { Vm } from '../../../src/vm/vm.ts';
import { checkpointsDir, vmPaths } from '../../../src/vm/vm-paths.ts';

const ORIGINAL = 'aaaaaaaaaaaa';
const [CHILD, OTHER] = ['bbbbbbbbbbbb', 'cccccccccccc'];
const [FIRST, SECOND] = ['111111111111', '222222222222'];
let paths: { dataDir: string; runtimeDir: string; cacheDir: string };

beforeEach(async () => {
  const dir = await mkdtemp(join(tmpdir(), 'qmp-agent-checkpoints-'));
  paths = { dataDir: join(dir, 'data'), runtimeDir: join(dir, 'run'), cacheDir: join(dir, 'c') };
  await ensureStateDirs(paths);
  for (const id of [FIRST, SECOND]) await makeCheckpoint(paths, id, ORIGINAL);
});
afterEach(() => rm(join(paths.dataDir, '..'), { recursive: true }));

const left = async () => (await readdir(checkpointsDir(paths))).sort();
const configOn = (...ids: string[]): VmConfig => {
  const diskPaths = ids.map((id) => checkpointFiles(paths, id).diskPath);
  return { rootfsPath: '/i/r', template: { diskPaths } } as unknown as VmConfig;
};

async function child(id: string, config: VmConfig, change: Partial<VmRecord> = {}): Promise<void> {
  const files = vmPaths(paths, id);
  await mkdir(files.dir, { recursive: true });
  const record = { schema: STATE_SCHEMA, id, createdAt: 't', state: 'stopped', config };
  await writeRecord(files, { ...record, ...change } as unknown as VmRecord);
}

describe('a checkpoint', () => {
  it('goes with the last VM on it, also over generations', async () => {
    await child(CHILD, configOn(FIRST));
    await child(OTHER, configOn(SECOND, FIRST));
    expect(await removeUnusedCheckpoints(paths)).toEqual([]);
    await removeVm(paths, CHILD);
    expect(await left()).toEqual([FIRST, SECOND]);
    await removeVm(paths, OTHER);
    expect(await left()).toEqual([]);
  });

  it('goes with a child whose maker died half-way', async () => {
    const dead = { ...ownIdentity(), pid: 2 ** 22 };
    const memoryPath = checkpointFiles(paths, FIRST).memoryPath;
    const run = { starter: dead, startedAt: 't', accel: 'tcg', ports: 2, memoryPath } as const;
    await child(CHILD, configOn(FIRST), { state: 'starting', run });
    expect(await Vm.list({ paths })).toEqual([]);
    expect(await left()).toEqual([]);
  });

  it('stays where nobody knows what a VM stands on', async () => {
    await mkdir(vmPaths(paths, CHILD).dir);
    await writeFile(vmPaths(paths, CHILD).recordPath, '{');
    expect(await removeUnusedCheckpoints(paths)).toEqual([]);
    expect(await left()).toEqual([FIRST, SECOND]);
  });

  it('is known by the disks of a VM', () => {
    expect(isOnCheckpoint(paths, configOn(FIRST))).toBe(true);
    expect(isOnCheckpoint(paths, configOn())).toBe(false);
    expect(isOnCheckpoint(paths, { rootfsPath: '/i/r' } as VmConfig)).toBe(false);
  });
});
