/**
 * Checkpoints: the instants at which running VMs were forked, each with memory, devices' state and disk,
 * as of a template. One serves all children of a fork. It has no name and no owner: it is there as long as
 * a record names its disk. So the children's records are written before it is made.
 */
import { readFile, readdir, rm } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import type { StatePaths } from '../api.ts';
import { isVmId } from '../ids.ts';
import { readAllRecords, type VmConfig } from '../record.ts';
import { STATE_SCHEMA, makeDir, writeWhole } from '../state-dir.ts';
import { templateFiles } from '../template/manifest.ts';
import { checkpointsDir } from '../vm-paths.ts';

/** What is written down about a checkpoint; for people, and `inspect`. */
interface CheckpointManifest {
  readonly schema: typeof STATE_SCHEMA;
  readonly id: string;
  /** The VM that was forked; it may be gone. */
  readonly vmId: string;
  readonly createdAt: string;
}

/** Files of a checkpoint. */
export function checkpointFiles(paths: StatePaths, id: string) {
  const dir = join(checkpointsDir(paths), id);
  const { memoryPath, statePath, diskPath } = templateFiles(dir);
  return { dir, manifestPath: join(dir, 'checkpoint.json'), memoryPath, statePath, diskPath };
}

/** Makes the directory. @throws StateDirError, HostError ERR_HOST_DISK_FULL */
export async function makeCheckpoint(paths: StatePaths, id: string, vmId: string): Promise<void> {
  const { dir, manifestPath } = checkpointFiles(paths, id);
  await makeDir(dir);
  const createdAt = new Date().toISOString();
  const manifest: CheckpointManifest = { schema: STATE_SCHEMA, id, vmId, createdAt };
  await writeWhole(manifestPath, manifest);
}

/** The VM that was forked there; undefined where that cannot be read. */
export async function originalOf(paths: StatePaths, id: string): Promise<string | undefined> {
  const { manifestPath } = checkpointFiles(paths, id);
  try {
    const manifest = JSON.parse(
      await readFile(manifestPath, 'utf8'),
    ) as Partial<CheckpointManifest>;
    return typeof manifest.vmId === 'string' ? manifest.vmId : undefined;
  } catch {
    return undefined;
  }
}

/** All there are, also those that nothing stands on any more. */
export async function checkpointIds(paths: StatePaths): Promise<string[]> {
  return (await readdir(checkpointsDir(paths)).catch(() => [])).filter(isVmId).sort();
}

/** Whether this VM's disk stands on a checkpoint. */
export function isOnCheckpoint(paths: StatePaths, { template }: VmConfig): boolean {
  const dir = checkpointsDir(paths);
  return template?.diskPaths.some((path) => dirname(dirname(path)) === dir) === true;
}

/**
 * Removes the checkpoints that no VM's disk stands on. Cheap where there are none.
 * @returns their directories
 */
export async function removeUnusedCheckpoints(paths: StatePaths): Promise<string[]> {
  // Before the records are read: a checkpoint that is made meanwhile is none of these.
  const ids = await checkpointIds(paths);
  if (ids.length === 0) return [];
  const entries = await readAllRecords(paths);
  const used = new Set<string>();
  for (const { record } of entries) {
    if (record === undefined) return []; // nobody knows what it stands on
    for (const path of record.config.template?.diskPaths ?? []) used.add(path);
  }
  const removed: string[] = [];
  for (const id of ids) {
    const { dir, diskPath } = checkpointFiles(paths, id);
    if (used.has(diskPath)) continue;
    await rm(dir, { recursive: true, force: true, maxRetries: 2 });
    removed.push(dir);
  }
  return removed;
}
