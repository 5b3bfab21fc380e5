/** Taking away what dead processes left behind. */
import { existsSync } from 'node:fs';
import { readdir, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { events } from '../events.ts';
import { mendBridgeGuards, sweepNetwork } from '../network/index.ts';
import type { Reaped, StatePaths, WaitOptions } from './api.ts';
import { processName } from './argv.ts';
import { FileLock } from './file-lock.ts';
import { removeUnusedCheckpoints } from './fork/checkpoint.ts';
import { isVmId } from './ids.ts';
import {
  findByArgument,
  isAlive,
  signalProcess,
  type ProcessIdentity,
} from './process-identity.ts';
import {
  listVmIds,
  readAllRecords,
  readRecord,
  type RecordEntry,
  type VmRecord,
  type VmRun,
} from './record.ts';
import { givePlaceBack, identityOf } from './network-of.ts';
import { stateFault } from './state-dir.ts';
import { keptRecord, savedInUse, sweepSaved } from './suspend/saved.ts';
import { TemplateStore } from './template/store.ts';
import { isAbandoned, isDown, observeState } from './vm-info.ts';
import { vmPaths, vmsDir } from './vm-paths.ts';

/** What is younger may be a creation under way in another process. */
const MIN_AGE_MS = 10_000;
/** From SIGKILL to a process's end. */
const KILL_MS = 5_000;
const KILL_POLL_MS = 5;
const TEMPORARY = /\.tmp$/;

/**
 * Reaps ephemeral VMs whose owners are gone. Cheap where there are none: one look at each record.
 * Done on the way of every create and list.
 * @returns the records that are left, and what was taken away
 */
export async function reapAbandoned(
  paths: StatePaths,
): Promise<{ entries: RecordEntry[]; reaped: Reaped[] }> {
  const entries: RecordEntry[] = [];
  const reaped = await removeCheckpoints(paths);
  for (const entry of await readAllRecords(paths)) {
    if (entry.record !== undefined && isAbandoned(entry.record)) {
      reaped.push(...(await removeVm(paths, entry.record.id, entry.record)));
    } else {
      entries.push(entry);
    }
  }
  return { entries, reaped };
}

/** All that {@link reapAbandoned} does, and what has no record, or a broken one. */
export async function collectGarbage(paths: StatePaths, o: WaitOptions = {}): Promise<Reaped[]> {
  const { entries, reaped } = await reapAbandoned(paths);
  for (const entry of entries) {
    o.signal?.throwIfAborted();
    const { dir } = vmPaths(paths, entry.id);
    if (entry.defect !== undefined) {
      // Written by a later version: not ours to judge.
      if (!entry.fromLaterVersion && (await isOld(dir)))
        reaped.push(...(await removeVm(paths, entry.id)));
    } else {
      reaped.push(...(await removeTemporaries(dir)));
      reaped.push(...(await removeDeadSockets(paths, entry.record)));
      reaped.push(...(await endBroken(paths, entry.record)));
    }
  }
  const known = new Set(entries.map((entry) => entry.id));
  for (const id of await listVmIds(paths)) {
    o.signal?.throwIfAborted();
    if (known.has(id) || !(await isOrphan(paths, id))) continue;
    reaped.push(...(await removeVm(paths, id)));
  }
  reaped.push(...(await removeOrphanRuntimeDirs(paths)));
  reaped.push(...(await killOrphans(paths)));
  reaped.push(...(await removeHalfTemplates(paths)));
  reaped.push(...(await sweepTapsOf(paths, o)));
  return reaped;
}

/** What cannot be taken away of the network does not keep anything else from going. */
function leftover(vmId: string | undefined, error: unknown): void {
  const message = `its tap is left: ${error instanceof Error ? error.message : String(error)}`;
  const hint = 'Run `qmp-agent gc` as root.';
  events.emit('host.warning', { vmId, code: 'vm.leftover', message, hint });
}

/** Somebody has flushed the guard of a VM on a bridge, and it cannot be put back. */
function unguarded(error: unknown): void {
  const message = `VMs on bridges may be without guard: ${error instanceof Error ? error.message : String(error)}`;
  const hint = 'Run `qmp-agent gc` as root, or start them again.';
  events.emit('host.warning', { vmId: undefined, code: 'network.unguarded', message, hint });
}

/** Taps and rules of VMs that do not run: of dead processes, and of VMs that went down by themselves. */
async function sweepTapsOf(paths: StatePaths, o: WaitOptions): Promise<Reaped[]> {
  const judge = async (id: string, takeAway: () => Promise<boolean>): Promise<boolean> => {
    const files = vmPaths(paths, id);
    let lock: FileLock | undefined;
    try {
      lock = await FileLock.tryAcquire(files.lockPath);
    } catch {
      return takeAway(); // its directory is gone, and it with it
    }
    if (lock === undefined) return false; // somebody makes, starts or ends it
    await using _lock = lock;
    const record = await readRecord(files).catch(() => undefined);
    return record === undefined || isDown(observeState(record).state) ? await takeAway() : false;
  };
  const identity = async (id: string) => {
    const record = await readRecord(vmPaths(paths, id)).catch(() => undefined);
    return record && identityOf(id, record.config);
  };
  const taps = await sweepNetwork(paths.runtimeDir, judge, o).catch((error: unknown) => {
    leftover(undefined, error);
    return [];
  });
  await mendBridgeGuards(paths.runtimeDir, identity, o).catch(unguarded);
  const reaped = taps.map((path): Reaped => ({ kind: 'tap', path }));
  announce(reaped);
  return reaped;
}

/**
 * Removes a VM with all it has: process, sockets, disk, record. Two processes may do so at once.
 */
export async function removeVm(
  paths: StatePaths,
  id: string,
  record?: VmRecord,
): Promise<Reaped[]> {
  const files = vmPaths(paths, id);
  const known = record?.run?.qemu;
  // Without a pid in the record its writer died in the midst of a start, or it cannot be read.
  const reaped = known !== undefined ? await killAll([known]) : await killStrays(id);
  await givePlaceBack({ id, files, config: record?.config }).catch((error: unknown) =>
    leftover(id, error),
  );
  for (const dir of [files.runtimeDir, files.dir]) {
    if (
      await stat(dir).then(
        () => true,
        () => false,
      )
    ) {
      await rm(dir, { recursive: true, force: true, maxRetries: 2 }).catch((error: unknown) => {
        throw stateFault(error, dir);
      });
      reaped.push({ kind: dir === files.dir ? 'vm' : 'socket', path: dir });
    }
  }
  announce(reaped, id);
  return [...reaped, ...(await removeCheckpoints(paths))];
}

/** Those whose last VM is gone. */
async function removeCheckpoints(paths: StatePaths): Promise<Reaped[]> {
  const dirs = await removeUnusedCheckpoints(paths);
  const reaped = dirs.map((path): Reaped => ({ kind: 'dir', path }));
  announce(reaped);
  return reaped;
}

/** Kills exactly this process and waits for its end. @returns whether it ran */
async function killProcess(identity: ProcessIdentity): Promise<boolean> {
  if (!signalProcess(identity, 'SIGKILL')) return false;
  const deadline = performance.now() + KILL_MS;
  const isThere = async () => isAlive(identity) || (await threadsOf(identity.pid)) > 1;
  while ((await isThere()) && performance.now() < deadline) await delay(KILL_POLL_MS);
  return true;
}

/** A zombie's other threads may still hold its sockets, and the lock on its disk. */
async function threadsOf(pid: number): Promise<number> {
  return (await readdir(`/proc/${pid}/task`).catch(() => [])).length;
}

/** @returns those that ran */
async function killAll(processes: readonly ProcessIdentity[]): Promise<Reaped[]> {
  const reaped: Reaped[] = [];
  for (const identity of processes) {
    if (await killProcess(identity)) reaped.push({ kind: 'process', path: `pid ${identity.pid}` });
  }
  return reaped;
}

/** Kills the QEMUs of a VM that its record does not know of: those of processes that died. */
export async function killStrays(id: string): Promise<Reaped[]> {
  return killAll(await findQemus(id));
}

/** QEMUs that were started for this VM, by the word in their `-name`. */
export async function findQemus(id: string): Promise<ProcessIdentity[]> {
  const name = processName(id);
  return findByArgument((argv) => argv.includes(name) && argv.includes('-nodefaults'));
}

/** A directory without a record that nobody is about to fill. */
async function isOrphan(paths: StatePaths, id: string): Promise<boolean> {
  const files = vmPaths(paths, id);
  if (!(await isOld(files.dir))) return false;
  const lock = await FileLock.tryAcquire(files.lockPath);
  if (lock === undefined) return false;
  await using _held = lock;
  return (await readRecord(files).catch(() => undefined)) === undefined;
}

async function removeTemporaries(dir: string): Promise<Reaped[]> {
  const reaped: Reaped[] = [];
  for (const name of await readdir(dir).catch(() => [])) {
    const path = join(dir, name);
    if (!TEMPORARY.test(name) || !(await isOld(path))) continue;
    await rm(path, { force: true });
    reaped.push({ kind: 'temp', path });
  }
  announce(reaped);
  return reaped;
}

/**
 * What a process left that was killed in the midst of a start, a suspend or a resume: a QEMU that the
 * record knows nothing of, or no more; a VM whose id nobody was told; saved memory that nobody needs. Where
 * somebody is at it, he has the lock.
 */
async function endBroken(paths: StatePaths, { id }: VmRecord): Promise<Reaped[]> {
  const files = vmPaths(paths, id);
  const lock = await FileLock.tryAcquire(files.lockPath).catch(() => undefined);
  if (lock === undefined) return [];
  await using _held = lock;
  const record = await readRecord(files).catch(() => undefined);
  if (record === undefined) return [];
  if (record.state === 'starting' && record.run === undefined)
    return await removeVm(paths, id, record);
  const runs = ({ qemu }: Partial<VmRun>) => qemu !== undefined && isAlive(qemu);
  const isRunning = record.state !== 'suspended' && runs(record.run ?? {});
  const reaped: Reaped[] = [];
  if (!isRunning) reaped.push(...(await killStrays(id)));
  await rm(keptRecord(files.recordPath), { force: true });
  const dirs = await sweepSaved(files.dir, savedInUse(record, runs));
  reaped.push(...dirs.map((path): Reaped => ({ kind: 'temp', path })));
  announce(reaped, id);
  return reaped;
}

/** Sockets of a VM that does not run. */
async function removeDeadSockets(paths: StatePaths, record: VmRecord): Promise<Reaped[]> {
  const { runtimeDir } = vmPaths(paths, record.id);
  const { run } = record;
  if (run === undefined || [run.qemu, run.starter].some((process) => process && isAlive(process)))
    return [];
  if (!(await isOld(runtimeDir))) return [];
  await rm(runtimeDir, { recursive: true, force: true });
  const reaped: Reaped[] = [{ kind: 'socket', path: runtimeDir }];
  announce(reaped, record.id);
  return reaped;
}

async function removeOrphanRuntimeDirs(paths: StatePaths): Promise<Reaped[]> {
  const vms = new Set(await listVmIds(paths));
  const reaped: Reaped[] = [];
  for (const id of await readdir(paths.runtimeDir).catch(() => [])) {
    const path = join(paths.runtimeDir, id);
    if (!isVmId(id) || vms.has(id) || !(await isOld(path))) continue;
    await rm(path, { recursive: true, force: true });
    reaped.push({ kind: 'dir', path });
  }
  announce(reaped);
  return reaped;
}

/** QEMUs whose sockets are in our runtime directory, and whose VM is gone. */
async function killOrphans(paths: StatePaths): Promise<Reaped[]> {
  const ours = `logfile=${vmsDir(paths).replaceAll(',', ',,')}/`;
  const orphans = await findByArgument((argv) => {
    const id = argv[argv.indexOf('-name') + 1]?.replace(/^qmp-agent-/, '') ?? '';
    // Looked for now, not before the scan: a VM that was created meanwhile has its directory first.
    const isStray = isVmId(id) && !existsSync(vmPaths(paths, id).dir);
    return isStray && argv.some((word) => word.includes(ours));
  });
  const reaped = await killAll(orphans);
  announce(reaped);
  return reaped;
}

async function removeHalfTemplates(paths: StatePaths): Promise<Reaped[]> {
  const dirs = await new TemplateStore(paths).removeAbandoned();
  const reaped = dirs.map((path): Reaped => ({ kind: 'temp', path }));
  announce(reaped);
  return reaped;
}

async function isOld(path: string): Promise<boolean> {
  const facts = await stat(path).catch(() => undefined);
  return facts !== undefined && Date.now() - facts.mtimeMs > MIN_AGE_MS;
}

function announce(reaped: readonly Reaped[], vmId?: string): void {
  for (const item of reaped) events.emit('gc.reaped', { ...item, vmId });
}
