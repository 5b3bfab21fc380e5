/** What is to be said about a VM: its record, and what the host shows. */
import { DiskQuotaError } from '../errors.ts';
import { usedBytes } from '../storage/index.ts';
import type { StatePaths, VmInfo, VmState } from './api.ts';
import { networkOf } from './network-of.ts';
import { readArgv } from './launcher.ts';
import { isAlive, type ProcessIdentity } from './process-identity.ts';
import type { RecordEntry, VmRecord } from './record.ts';
import { savedBytes, savedFiles } from './suspend/saved.ts';
import { vmPaths } from './vm-paths.ts';

/** Whether a process lives; a parameter so that tests need none. */
export type Liveness = (identity: ProcessIdentity) => boolean;

/** The state that a VM is in, whatever its record says. */
export function observeState(
  record: VmRecord,
  alive: Liveness = isAlive,
): { state: VmState; detail: string | undefined } {
  const { run } = record;
  // A QEMU that still runs is what a dead process left of a suspend or a resume.
  if (record.state === 'suspended') return { state: 'suspended', detail: record.detail };
  if (run?.qemu !== undefined && alive(run.qemu)) {
    // A starter that died between the launch and the agent's answer leaves `starting` behind; the
    // guest has come up by itself meanwhile, or will.
    const settled =
      record.state === 'starting'
        ? !alive(run.starter) && !isHalfClone(record)
        : record.state === 'stopped';
    const detail =
      run.parked === true ? 'a suspend or resume is under way, or broke off' : undefined;
    return { state: settled ? 'running' : record.state, detail: record.detail ?? detail };
  }
  if (record.state === 'stopped') return { state: 'stopped', detail: record.detail };
  if (
    record.state === 'starting' &&
    run?.qemu === undefined &&
    run !== undefined &&
    alive(run.starter)
  ) {
    return { state: 'starting', detail: undefined };
  }
  return { state: 'stopped', detail: 'QEMU is gone' };
}

/**
 * Whether this is a clone that has not been made a machine of its own: it still has its template's
 * numbers and names, and nobody may run anything in it.
 */
export function isHalfClone({ state, run }: Pick<VmRecord, 'state' | 'run'>): boolean {
  return state === 'starting' && run?.memoryPath !== undefined;
}

/**
 * Whether a guest has the MAC address of the machine that it is a copy of: who gives a copy its network tells it its own,
 * and an isolated one is told nothing of a network. From its next boot on it has its own.
 */
function hasCopiedMac({ config, run }: VmRecord, state: VmState): boolean {
  const isCopy = config.template !== undefined && run?.memoryPath !== undefined;
  return config.network === 'isolated' && isCopy && state !== 'stopped';
}

/** Whether a VM that is there has no QEMU, and wants none. */
export function isDown(state: VmState): boolean {
  return state === 'stopped' || state === 'suspended';
}

/** Whether this is an ephemeral VM whose owner is gone, or a clone that nobody will finish. */
export function isAbandoned(record: VmRecord, alive: Liveness = isAlive): boolean {
  const { owner, run } = record;
  if (owner !== undefined && !alive(owner)) return true;
  return run !== undefined && isHalfClone(record) && !alive(run.starter);
}

/** A record as users see it. */
export function infoOf(paths: StatePaths, record: VmRecord, alive: Liveness = isAlive): VmInfo {
  const { config, run } = record;
  const { state, detail } = observeState(record, alive);
  const runs = !isDown(state);
  const files = vmPaths(paths, record.id);
  return {
    id: record.id,
    name: record.name,
    state,
    stateDetail: detail,
    persistent: config.persistent,
    image: config.image,
    template: config.template && { name: config.template.name, id: config.template.id },
    vcpus: config.vcpus,
    memoryMib: config.memoryMib,
    diskBytes: config.diskBytes,
    diskQuotaBytes: config.diskQuotaBytes,
    accel: run?.accel ?? (config.accel === 'auto' ? undefined : config.accel),
    machine: config.machine,
    channel: config.channel,
    network: config.network,
    ipv6: config.ipv6,
    mac: hasCopiedMac(record, state) ? undefined : networkOf(record.id, config)?.nic.mac,
    cid: runs ? run?.cid : undefined,
    pid: runs ? run?.qemu?.pid : undefined,
    ownerPid: record.owner?.pid,
    createdAt: record.createdAt,
    startedAt: run?.startedAt,
    suspendedAt: record.suspended?.savedAt,
    dir: files.dir,
    runtimeDir: files.runtimeDir,
  };
}

/** Nobody writes down that a disk is full, as there may be no space for it: the watch knows. */
export function seenBy(
  watch: { readonly outOfSpace: Error | undefined } | undefined,
  info: VmInfo,
): VmInfo {
  const why = watch?.outOfSpace;
  if (info.state !== 'running' || why === undefined) return info;
  const isQuota = why instanceof DiskQuotaError;
  const stateDetail = isQuota ? 'its disk quota is reached' : 'the host’s disk is full';
  return { ...info, state: 'paused', stateDetail };
}

/** As {@link infoOf}, with what costs a look at the host. */
export async function inspectVm(paths: StatePaths, record: VmRecord): Promise<VmInfo> {
  const info = infoOf(paths, record);
  const { dir, diskPath } = vmPaths(paths, info.id);
  const argv = info.pid === undefined ? undefined : await readArgv(info.pid);
  const { suspended } = record;
  const suspendedBytes = suspended && (await savedBytes(savedFiles(dir, suspended.name)));
  return { ...info, argv, suspendedBytes, diskUsedBytes: await usedBytes(diskPath) };
}

/** An entry as users see it; of a broken record only id and defect are known. */
export function entryInfo(paths: StatePaths, entry: RecordEntry): VmInfo {
  if (entry.record !== undefined) return infoOf(paths, entry.record);
  const files = vmPaths(paths, entry.id);
  return {
    id: entry.id,
    name: undefined,
    state: 'broken',
    stateDetail: entry.defect,
    persistent: true,
    image: '',
    template: undefined,
    vcpus: 0,
    memoryMib: 0,
    diskBytes: 0,
    diskQuotaBytes: undefined,
    accel: undefined,
    machine: 'q35',
    channel: 'virtio-serial',
    network: undefined,
    ipv6: undefined,
    mac: undefined,
    cid: undefined,
    pid: undefined,
    ownerPid: undefined,
    createdAt: '',
    startedAt: undefined,
    suspendedAt: undefined,
    dir: files.dir,
    runtimeDir: files.runtimeDir,
  };
}
