/** What images, templates and VMs take on the host's disk, who stands on what, what could go. */
import { readdir, realpath } from 'node:fs/promises';
import { join } from 'node:path';
import { resolvePaths } from '../../config/paths.ts';
import { allocatedBytes, readSnapshots, usedBytes } from '../../storage/index.ts';
import type { StateOptions, StatePaths } from '../api.ts';
import { checkpointFiles, checkpointIds, originalOf } from '../fork/checkpoint.ts';
import { isSavedName } from '../ids.ts';
import { openImageStore } from '../image-store.ts';
import { readAllRecords, type RecordEntry } from '../record.ts';
import { checkLayout } from '../state-dir.ts';
import { templateFiles } from '../template/manifest.ts';
import { TemplateStore } from '../template/store.ts';
import { entryInfo, isAbandoned } from '../vm-info.ts';
import { vmPaths } from '../vm-paths.ts';
import { reclaimableOf, sum } from './reclaimable.ts';
import type {
  CheckpointUsage,
  DirectoryUsage,
  DiskUsage,
  ImageUsage,
  TemplateUsage,
  VmUsage,
} from './types.ts';

/** Directories of the data directory that are told apart. */
const KNOWN = ['images', 'templates', 'vms', 'checkpoints'] as const;
type Known = (typeof KNOWN)[number];

/**
 * What is on the host's disk, and what could be had back. Changes nothing.
 * @throws StateDirError the state directory cannot be read, or is of a later version
 */
export async function diskUsage(o: StateOptions = {}): Promise<DiskUsage> {
  const paths = o.paths ?? resolvePaths();
  await checkLayout(paths);
  const seen = new Set<string>(); // the kernel of a boot kit is one file, in the cache and in images
  const images = await imageUsage(paths, seen);
  const templates = await templateUsage(paths, seen);
  const entries = await readAllRecords(paths);
  const vms = await Promise.all(entries.map((entry) => vmUsage(paths, entry, seen)));
  const checkpoints = await checkpointUsage(paths, entries, seen);
  const cache = { path: paths.cacheDir, usedBytes: await allocatedBytes(paths.cacheDir, seen) };
  const others = await otherUsage(paths, seen, { images, templates, vms, checkpoints });
  const dead = new Set(
    entries.flatMap(({ id, record }) => (record === undefined || isAbandoned(record) ? [id] : [])),
  );
  const reclaimable = reclaimableOf({ images, templates, vms, cache, dead });
  return {
    ...{ images, templates, vms, checkpoints, others, cache, reclaimable },
    usedBytes: sum([...images, ...templates, ...vms, ...checkpoints, ...others, cache]),
    reclaimableBytes: sum(reclaimable),
  };
}

async function imageUsage(paths: StatePaths, seen: Set<string>): Promise<ImageUsage[]> {
  const found: ImageUsage[] = [];
  for (const { name, version, dir, isCurrent, usedBy } of await openImageStore(paths).versions())
    found.push({ name, version, isCurrent, usedBytes: await allocatedBytes(dir, seen), usedBy });
  return found;
}

async function templateUsage(paths: StatePaths, seen: Set<string>): Promise<TemplateUsage[]> {
  const found: TemplateUsage[] = [];
  for (const { name, defect, dir, usedBy, memoryPlace } of await new TemplateStore(paths).list()) {
    const { memoryPath, diskPath } = templateFiles(dir);
    const memoryBytes = await usedBytes(memoryPath);
    const own = await allocatedBytes(dir, seen);
    found.push({
      ...{ name, defect, usedBy },
      usedBytes: memoryPlace === undefined ? own : own + memoryBytes,
      memoryBytes,
      memoryPlace,
      diskBytes: await usedBytes(diskPath),
    });
  }
  return found;
}

async function vmUsage(paths: StatePaths, entry: RecordEntry, seen: Set<string>): Promise<VmUsage> {
  const { id, name, state, image, template, diskQuotaBytes, dir } = entryInfo(paths, entry);
  const { diskPath, consoleLogPath, qemuLogPath } = vmPaths(paths, id);
  const logs = [consoleLogPath, qemuLogPath].flatMap((path) => [path, `${path}.1`]);
  const [all, disk, ...ofLogs] = await Promise.all([
    allocatedBytes(dir, seen),
    ...[diskPath, ...logs].map(usedBytes),
  ]);
  const suspendedBytes = await suspendedUsage(dir);
  const [diskBytes, logBytes] = [disk ?? 0, ofLogs.reduce((total, bytes) => total + bytes, 0)];
  return {
    ...{ id, name, state, diskBytes, logBytes, quotaBytes: diskQuotaBytes },
    standsOn: entry.record && (template ? `template ${template.name}` : `image ${image}`),
    usedBytes: all,
    snapshots: (await readSnapshots(diskPath)).map((one) => ({
      name: one.name,
      stateBytes: one.stateBytes,
    })),
    suspendedBytes,
    otherBytes: Math.max(0, all - diskBytes - logBytes - suspendedBytes),
  };
}

/** Bytes of the directories with a VM's saved memory; there is one, or none. */
async function suspendedUsage(dir: string): Promise<number> {
  let bytes = 0;
  for (const name of await readdir(dir).catch(() => []))
    if (isSavedName(name)) bytes += await allocatedBytes(join(dir, name));
  return bytes;
}

async function checkpointUsage(
  paths: StatePaths,
  entries: readonly RecordEntry[],
  seen: Set<string>,
): Promise<CheckpointUsage[]> {
  const found: CheckpointUsage[] = [];
  for (const id of await checkpointIds(paths)) {
    const { dir, memoryPath, diskPath } = checkpointFiles(paths, id);
    found.push({
      ...{ id, forkedFrom: await originalOf(paths, id) },
      usedBytes: await allocatedBytes(dir, seen),
      memoryBytes: await usedBytes(memoryPath),
      diskBytes: await usedBytes(diskPath),
      usedBy: entries.flatMap(({ record }) =>
        record?.config.template?.diskPaths.includes(diskPath) === true
          ? [record.name ?? record.id]
          : [],
      ),
    });
  }
  return found;
}

/** What is left in the data directory. */
async function otherUsage(
  { dataDir }: StatePaths,
  seen: Set<string>,
  listed: Pick<DiskUsage, Known>,
): Promise<DirectoryUsage[]> {
  const others: DirectoryUsage[] = [];
  for (const name of await readdir(dataDir).catch(() => [])) {
    const path = await realpath(join(dataDir, name)).catch(() => join(dataDir, name));
    // What was listed is seen, where it has several names; so its share is taken off.
    const elsewhere = name === 'templates' ? listed.templates.filter((one) => one.memoryPlace) : [];
    const away = elsewhere.reduce((total, { memoryBytes }) => total + memoryBytes, 0);
    const kind = KNOWN.find((one) => one === name);
    const known = kind === undefined ? 0 : sum(listed[kind]) - away;
    const bytes = (await allocatedBytes(path, new Set(known === 0 ? seen : []))) - known;
    if (bytes > 0) others.push({ path, usedBytes: bytes });
  }
  return others;
}
