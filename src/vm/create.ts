/** Making a VM: whatever is taken on the way is given back where a later step fails. */
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { resolvePaths } from '../config/paths.ts';
import { ConfigError } from '../errors.ts';
import { events } from '../events.ts';
import { warnAboutReach } from '../network/mode.ts';
import { createOverlay } from '../storage/index.ts';
import { DEFAULT_READY_TIMEOUT_MS, type StatePaths, type VmCreateOptions } from './api.ts';
import { probeKvm } from './accel.ts';
import { awaitReady, type ReadyOptions } from './boot.ts';
import { FileLock } from './file-lock.ts';
import { reapAbandoned, removeVm } from './gc.ts';
import { growDisk } from './grow-disk.ts';
import { bringUpNetwork } from './guest-network.ts';
import { newVmId } from './ids.ts';
import { givePlaceBack, NamesWait, takePlace } from './network-of.ts';
import { openImageStore } from './image-store.ts';
import { findQemu } from './launcher.ts';
import type { LaunchContext, LiveVm } from './live-vm.ts';
import { ownIdentity } from './process-identity.ts';
import { writeRecord, type VmConfig, type VmRecord } from './record.ts';
import { kill } from './shutdown.ts';
import { ensureStateDirs, STATE_SCHEMA, stateFault } from './state-dir.ts';
import { step } from '../steps.ts';
import { checkOptions, resolveConfig } from './vm-config.ts';
import { launchCaptured, pcapOf } from './vm-capture.ts';
import { checkSocketPaths, vmPaths, vmsDir } from './vm-paths.ts';

/** A VM that was made, and runs. */
export interface CreatedVm {
  readonly paths: StatePaths;
  readonly record: VmRecord;
  readonly live: LiveVm;
}

/** Makes and starts a VM, and waits until its agent answers. See {@link VmStatics.create}. */
export async function createVm(o: VmCreateOptions): Promise<CreatedVm> {
  const deadline = performance.now() + (o.timeoutMs ?? DEFAULT_READY_TIMEOUT_MS);
  const checked = checkOptions(o);
  const { paths, id } = await beginVm(o);
  const store = openImageStore(paths);
  const [image] = await Promise.all([
    store.get(checked.image),
    findQemu(checked.qemuPath),
    probeKvm(),
    reapAbandoned(paths),
  ]);
  const config = await resolveConfig(checked, id, image);
  const first = firstRecord(id, checked.name, config);
  await using lock = new Releaser();
  try {
    step('create', 'enter', id);
    lock.held = await enterVm(paths, first);
    step('create', 'disk', id);
    o.onProgress?.('disk');
    const files = vmPaths(paths, id);
    const [boot, overlay] = await Promise.all([
      store.bootFiles(image, { signal: o.signal }),
      createOverlay({
        path: files.diskPath,
        backing: config.rootfsPath,
        sizeBytes: config.diskBytes,
        signal: o.signal,
      }),
    ]);
    announceVm(first);
    o.onProgress?.('launch');
    const sized: VmRecord = { ...first, config: { ...config, diskBytes: overlay.virtualBytes } };
    const { live, record } = await launchAndBoot({
      operation: 'create',
      paths,
      record: sized,
      from: boot,
      deadline,
      signal: o.signal,
      onProgress: o.onProgress,
      pcap: o.pcap,
    });
    return { paths, record, live };
  } catch (error) {
    await removeVm(paths, id).catch(() => undefined);
    throw error;
  }
}

/**
 * What every new VM begins with: the directories are there, and it has an id.
 * @throws HostError its sockets' paths would be too long; StateDirError; the signal's reason
 */
export async function beginVm(
  o: Pick<VmCreateOptions, 'paths' | 'signal' | 'onProgress'>,
): Promise<{ paths: StatePaths; id: string }> {
  const paths = o.paths ?? resolvePaths();
  const id = newVmId();
  checkSocketPaths(paths, id);
  o.signal?.throwIfAborted();
  await ensureStateDirs(paths);
  o.onProgress?.('image');
  return { paths, id };
}

/** What is written down of a new VM before anything else is made. */
export function firstRecord(id: string, name: string | undefined, config: VmConfig): VmRecord {
  return {
    schema: STATE_SCHEMA,
    id,
    name,
    createdAt: new Date().toISOString(),
    owner: config.persistent ? undefined : ownIdentity(),
    config,
    state: 'starting',
  };
}

/** Its disk is made; QEMU comes next. */
export function announceVm({ id, name, config }: VmRecord): void {
  const { image, accel, machine, vcpus, memoryMib, persistent } = config;
  const what = { image, accel, machine, vcpus, memoryMib, persistent };
  events.emit('vm.created', { vmId: id, name, ...what });
}

/** Launches a VM's QEMU and waits for the agent; the record follows. QEMU is gone where it throws. */
export async function launchAndBoot(o: {
  /** As whose steps its own are told of. Default `start`. */
  operation?: 'create' | 'clone' | 'fork';
  paths: StatePaths;
  record: VmRecord;
  from: LaunchContext['from'];
  deadline: number;
  /** Until anybody may have the guest. Default: its agent answers. */
  ready?: (live: LiveVm, o: ReadyOptions) => Promise<void>;
  signal?: AbortSignal | undefined;
  onProgress?: VmCreateOptions['onProgress'];
  pcap?: VmCreateOptions['pcap'];
}): Promise<{ live: LiveVm; record: VmRecord }> {
  const { id, config } = o.record;
  const files = vmPaths(o.paths, id);
  const startedAt = performance.now();
  const { operation = 'start' } = o;
  const pcap = pcapOf(o.pcap, config);
  step(operation, 'launch', id);
  warnAboutReach(config.network);
  let record: VmRecord = { ...o.record, state: 'starting', detail: undefined };
  const onNetwork = { id, files, config };
  const place = await takePlace(onNetwork, o.signal);
  const left = { signal: o.signal, timeoutMs: o.deadline - performance.now() };
  using names = new NamesWait(onNetwork, place, left);
  const live = await launchCaptured(pcap, place, {
    id,
    paths: files,
    config,
    from: o.from,
    signal: o.signal,
    onStep: (name) => step(operation as 'clone', name, id),
    onSpawn: async (run) => {
      record = { ...record, run };
      await writeRecord(files, record);
      await place?.whole; // as long as QEMU takes to answer
    },
  }).catch(async (error: unknown) => {
    await givePlaceBack(onNetwork, place).catch(() => undefined); // gc will
    throw error;
  });
  try {
    o.onProgress?.('boot');
    step(operation, 'ready', id);
    const timeoutMs = o.deadline - performance.now();
    await (o.ready ?? awaitReady)(live, { id, paths: files, timeoutMs, signal: o.signal });
    const isBoot = !('statePath' in o.from);
    const { signal } = o;
    if (isBoot) await growDisk(live, config, { id, signal });
    if (isBoot) await bringUpNetwork(live, config, { id, files, signal }); // what goes on from frozen files has it
    await names.answered;
    step(operation, 'record', id);
    record = { ...record, state: 'running' };
    await writeRecord(files, record);
  } catch (error) {
    await kill(live).catch(() => undefined);
    await live.release();
    await givePlaceBack(onNetwork, place).catch(() => undefined); // gc will
    throw error;
  }
  const readyMs = Math.round(performance.now() - startedAt);
  events.emit('vm.ready', { vmId: id, readyMs, channel: config.channel });
  o.onProgress?.('ready');
  return { live, record };
}

/** Takes the VM's directory, lock and name, and writes the record. */
export async function enterVm(paths: StatePaths, record: VmRecord): Promise<FileLock> {
  const { name } = record;
  await using names = new Releaser();
  if (name !== undefined) {
    names.held = await FileLock.acquire(join(vmsDir(paths), '.names.lock'), {
      operation: 'the list of VM names',
    });
    const { entries } = await reapAbandoned(paths);
    const other = entries.find((entry) => entry.record?.name === name);
    if (other !== undefined) {
      throw new ConfigError(`the name ${name} is taken by VM ${other.id}`, {
        field: 'vm.name',
        value: name,
        hint: `Choose another, or remove that VM (\`qmp-agent remove ${name}\`).`,
      });
    }
  }
  const files = vmPaths(paths, record.id);
  await mkdir(files.dir, { mode: 0o700 }).catch((error: unknown) => {
    throw stateFault(error, files.dir);
  });
  const lock = await FileLock.acquire(files.lockPath);
  try {
    await writeRecord(files, record);
  } catch (error) {
    await lock.release();
    throw error;
  }
  return lock;
}

/** Gives back a lock that may be taken later. */
export class Releaser implements AsyncDisposable {
  held: FileLock | undefined;
  async [Symbol.asyncDispose](): Promise<void> {
    await this.held?.release();
  }
}
