/** Writing a running VM out to the host's disk, and ending its QEMU. */
import { link, mkdir, readFile, rename, rm } from 'node:fs/promises';
import { StateError, SuspendError, TimeoutError } from '../../errors.ts';
import { events } from '../../events.ts';
import { step } from '../../steps.ts';
import { eitherSignal, lateSignal } from '../abort.ts';
import type { WaitOptions } from '../api.ts';
import { connectedChannels } from '../connected-channels.ts';
import { newSavedName } from '../ids.ts';
import type { LiveVm } from '../live-vm.ts';
import { givePlaceBack } from '../network-of.ts';
import type { SavedMemory } from '../record.ts';
import { requireWhole } from '../resume.ts';
import { shutDown } from '../shutdown.ts';
import { stateFault } from '../state-dir.ts';
import { madeHere } from '../template/fit.ts';
import { sha256 } from '../template/manifest.ts';
import { copyMemory, locateMemory } from '../template/memory.ts';
import { saveState } from '../template/state.ts';
import { requireUnchanged } from '../upgraded.ts';
import type { VmInside } from '../vm-inside.ts';
import {
  asNoSpace,
  keptRecord,
  makeDurable,
  requireSpace,
  savedBytes,
  savedFiles,
  sweepSaved,
  type SavedFiles,
} from './saved.ts';

/** Gigabytes of memory on a slow disk. */
const SUSPEND_MS = 120_000;
/** A VM that goes on after all: until its agent has heard of it. */
const GO_ON_MS = 30_000;
const MIB = 2 ** 20;

/**
 * Suspends a running VM. The record's word decides which of the two there is, the running VM or the
 * saved one: until it is written nothing is lost, and the VM goes on where a step fails; from then on
 * its QEMU is a left-over.
 * @throws StateError, HostError, GuestError, QmpError, TimeoutError; the signal's reason
 */
export async function suspendVm(vm: VmInside, given: WaitOptions): Promise<void> {
  requireStays(vm);
  const startedAt = performance.now();
  const timeoutMs = given.timeoutMs ?? SUSPEND_MS;
  const late = lateSignal(timeoutMs);
  await vm.exclusively(['running'], { ...given, timeoutMs }, async (live) => {
    requireWhole(vm);
    const { pid } = live.process.identity;
    const { dir } = vm.files;
    const memoryBytes = vm.config.memoryMib * MIB;
    await requireSpace(dir, { pid, memoryPath: live.run.memoryPath, memoryBytes });
    const now = { ...given, timeoutMs, refuse: upgraded(vm) };
    await live.qmp.use((client) => requireUnchanged(vm, live, client, now), given);
    const name = newSavedName();
    const files = savedFiles(dir, name);
    step('suspend', 'keep', vm.id);
    const before = await keepRecord(vm.files.recordPath);
    const signal = eitherSignal(live.watch.fault, late, given.signal);
    let pausedMs: number;
    try {
      const o = { signal, timeoutMs };
      const saved = await save(vm, live, files, o);
      ({ pausedMs } = saved);
      const { busyChannels } = saved;
      const suspended = { ...(await describe(vm, live, { name, files })), busyChannels };
      o.signal.throwIfAborted();
      step('suspend', 'commit', vm.id);
      await vm.write({ state: 'suspended', suspended });
    } catch (error) {
      await rm(files.dir, { recursive: true, force: true }).catch(() => undefined);
      await goOn(vm, live, before);
      if (!late.aborted || given.signal?.aborted === true) throw asNoSpace(error);
      throw new TimeoutError(`suspending VM ${vm.id}`, timeoutMs, { vmId: vm.id, cause: error });
    } finally {
      await rm(before, { force: true }).catch(() => undefined);
    }
    step('suspend', 'end', vm.id);
    live.watch.expectEnd('suspended');
    const { machine } = vm.config;
    await shutDown(live, { graceMs: 0, machine, awake: false });
    await vm.letGo();
    await givePlaceBack(vm).catch(() => undefined); // the resume, or gc, will
    step('suspend', 'sweep', vm.id);
    await sweepSaved(dir, name);
    const durationMs = Math.round(performance.now() - startedAt);
    const what = { savedBytes: await savedBytes(files), durationMs, pausedMs };
    events.emit('vm.suspended', { vmId: vm.id, ...what });
  });
}

/** Whose VM ends with a process has nothing that could be resumed later. */
function requireStays({ id, config, record }: VmInside): void {
  if (config.persistent) return;
  throw new StateError(`VM ${id} goes with the process that made it (${record.owner?.pid})`, {
    vmId: id,
    actual: 'ephemeral',
    required: ['persistent'],
    hint: 'Suspend VMs that stay: `qmp-agent create`, `qmp-agent clone`, or `persistent: true`.',
  });
}

/** QEMU, or this program, was upgraded since the VM was started. */
function upgraded({ id }: VmInside) {
  return (was: string, is: string): SuspendError =>
    new SuspendError(
      'ERR_SUSPEND_MISMATCH',
      `VM ${id} runs on ${was}, and would be resumed on ${is}`,
      { hint: 'There was an upgrade meanwhile: stop the VM and start it, then suspend it.' },
    );
}

/** @returns ms for which the vCPUs have stood still, and the channels that had a session */
async function save(
  vm: VmInside,
  live: LiveVm,
  files: SavedFiles,
  o: WaitOptions & { signal: AbortSignal },
): Promise<{ pausedMs: number; busyChannels: number[] }> {
  step('suspend', 'park', vm.id);
  // First, so that whoever finds the VM after us knows what it needs.
  await vm.note('paused', { parked: true });
  await mkdir(files.dir, { mode: 0o700 }).catch((error: unknown) => {
    throw stateFault(error, files.dir);
  });
  const session = await live.link.open(o);
  await session.park(o);
  const where = { pid: live.process.identity.pid, bytes: vm.config.memoryMib * MIB };
  return live.qmp.use(async (client) => {
    const memory = await locateMemory(client, where, o);
    const busyChannels = await connectedChannels(client, live.run.ports, o);
    const pausedAt = performance.now();
    step('suspend', 'stop', vm.id);
    await client.execute('stop', {}, o); // flushes the disk, too
    step('suspend', 'state', vm.id);
    await saveState(client, files.statePath, o);
    const { memoryPath: below } = live.run;
    step('suspend', 'memory', vm.id);
    await copyMemory(memory, files.memoryPath, { below, signal: o.signal });
    step('suspend', 'durable', vm.id);
    await makeDurable(files);
    return { busyChannels, pausedMs: Math.round(performance.now() - pausedAt) };
  }, o);
}

async function describe(
  { config }: VmInside,
  live: LiveVm,
  { name, files }: { name: string; files: SavedFiles },
): Promise<SavedMemory> {
  const { qemuPath, memoryMib } = config;
  return {
    name,
    savedAt: new Date().toISOString(),
    ...(await madeHere({ qemuPath, accel: live.run.accel })),
    memoryBytes: memoryMib * MIB,
    stateSha256: sha256(await readFile(files.statePath)),
  };
}

/** A second name for the record as it is: to put it back takes no space, which may be what is wanting. */
async function keepRecord(path: string): Promise<string> {
  const kept = keptRecord(path);
  await rm(kept, { force: true });
  await link(path, kept).catch(() => undefined); // a file system that cannot: then there must be space
  return kept;
}

/** As if nothing had happened. Where that fails, the VM is paused by its record, and `resume` mends it. */
async function goOn(vm: VmInside, live: LiveVm, before: string): Promise<void> {
  const { fault, outOfSpace } = live.watch;
  if (fault.aborted && outOfSpace === undefined) return;
  const o = { timeoutMs: GO_ON_MS };
  try {
    await live.qmp.use((client) => client.execute('cont', {}, o), o);
    live.watch.renew();
    const session = await live.link.open(o);
    await session.thaw(Date.now(), o);
    const noted = vm.note('running', { parked: undefined });
    await noted.catch(() => rename(before, vm.files.recordPath));
  } catch {
    // whoever uses the VM next hears that it is paused, and what to do
  }
}
