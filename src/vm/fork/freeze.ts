/** Taking a running machine's memory, devices and disk at one instant, and letting it go on. */
import { truncate } from 'node:fs/promises';
import type { QmpClient } from '../../../qmp/index.ts';
import { StateError, TemplateError } from '../../errors.ts';
import type { GuestSession } from '../../guest/index.ts';
import { step } from '../../steps.ts';
import type { WaitOptions } from '../api.ts';
import { connectedChannels } from '../connected-channels.ts';
import { wrongState } from '../find-vm.ts';
import { goOn, type Standing } from '../go-on.ts';
import type { LiveVm } from '../live-vm.ts';
import { requireSpace } from '../snapshot-space.ts';
import { allOrNone } from '../template/all-or-none.ts';
import { copySparse, locateMemory, MemoryCopy } from '../template/memory.ts';
import { completeState, saveBareState, type FrozenFiles } from '../template/state.ts';
import { requireUnchanged } from '../upgraded.ts';
import type { VmInside } from '../vm-inside.ts';

const MIB = 2 ** 20;
/** For a channel to the guest where other processes have them all. */
const CHANNEL_MS = 10_000;
/** Jobs in these states do nothing any more. */
const IDLE_JOBS: readonly string[] = ['concluded', 'null'];

/** What was taken, and how. */
export interface ForkPoint {
  readonly from: FrozenFiles;
  /** From when what ran in the original stood still until it went on, ms. */
  readonly pausedMs: number;
}

/** Where it is written to: files that do not exist. */
export interface ForkTarget {
  readonly memoryPath: string;
  readonly statePath: string;
  readonly diskPath: string;
}

/**
 * Takes all of a VM that runs; inside `exclusively`. Its session with the agent stays, and so do execs:
 * they stand still for a moment. As much as can be is copied before.
 * @throws StateError, TemplateError ERR_TEMPLATE_MISMATCH, GuestRequestError, HostError, QmpError,
 *   TimeoutError; the VM goes on then, where it can
 */
export async function freezeRunning(
  vm: VmInside,
  live: LiveVm,
  to: ForkTarget,
  o: WaitOptions & { signal: AbortSignal; timeoutMs: number },
): Promise<ForkPoint> {
  const { memoryPath, ports } = live.run;
  const { pid } = live.process.identity;
  // Whoever finds all channels taken by others hears so before long.
  const timeoutMs = Math.min(o.timeoutMs, CHANNEL_MS);
  await using _channel = await live.link.reserve({ ...o, timeoutMs });
  const session = await live.link.open(o);
  // An agent of a time before forks knows no such request, and would leave all standing.
  await session.thaw(Date.now(), o);
  return await live.qmp.use(async (client) => {
    await requireQuiet(vm, client, o);
    await requireUnchanged(vm, live, client, { ...o, refuse: upgraded(vm) });
    await requireSpace(vm.files.dir, pid, 'checkpoint');
    step('fork', 'copy', vm.id);
    const memory = await locateMemory(client, { pid, bytes: vm.config.memoryMib * MIB }, o);
    await using copy = await MemoryCopy.open(memory, to.memoryPath, {
      below: memoryPath,
      signal: o.signal,
    });
    // Both would have to be done while all stand still, else.
    await allOrNone(o.signal, (signal) => [copy.take(signal), session.sync({ ...o, signal })]);
    const busyChannels = await connectedChannels(client, ports, o);
    const pausedMs = await standingStill(vm, { live, client, session, to }, o, async () => {
      step('fork', 'state', vm.id);
      await saveBareState(client, to.statePath, o);
      step('fork', 'take', vm.id);
      await allOrNone(o.signal, (signal) => [
        copy.take(signal),
        copySparse(vm.files.diskPath, to.diskPath, signal),
      ]);
    });
    step('fork', 'complete', vm.id);
    await completeState(client, to.statePath, o);
    const { memoryPath: path, statePath } = to;
    return { from: { memoryPath: path, statePath, busyChannels }, pausedMs };
  }, o);
}

interface ForkStanding extends Standing {
  readonly session: GuestSession;
  readonly to: ForkTarget;
}

/**
 * Does something while nothing in the guest moves: first what execs have started, so that it does not in
 * a copy either, then the vCPUs. All goes on afterwards, also where it fails.
 * @returns ms from when what execs had started stood still until it went on
 */
async function standingStill(
  vm: VmInside,
  standing: ForkStanding,
  o: WaitOptions,
  work: () => Promise<void>,
): Promise<number> {
  const { client, session, to } = standing;
  await vm.note('running', { forking: true });
  const onStep = (name: 'go-on' | 'thaw') => step('fork', name, vm.id);
  let stoppedAt: number | undefined;
  try {
    step('fork', 'park', vm.id);
    await session.park(o);
    step('fork', 'stop', vm.id);
    stoppedAt = performance.now();
    await client.execute('stop', {}, o); // flushes the disk, too
    await work();
  } catch (error) {
    // First the space that the copies took: the guest may have been stopped for want of it. They are open.
    for (const path of [to.memoryPath, to.statePath, to.diskPath])
      await truncate(path).catch(() => undefined);
    await goOn(vm, standing, { stoppedAt, onStep }).catch(() => undefined); // whoever uses the VM next does it then
    throw error;
  }
  return goOn(vm, standing, { stoppedAt, onStep });
}

/** @throws StateError QEMU does something else */
async function requireQuiet(vm: VmInside, client: QmpClient, o: WaitOptions): Promise<void> {
  const { status } = await client.execute('query-status', {}, o);
  if (status === 'paused') throw wrongState(vm.id, ['running'], 'paused');
  const jobs = await client.execute('query-jobs', {}, o);
  const job = jobs.find((one) => !IDLE_JOBS.includes(one.status));
  if (status !== 'running' || job !== undefined) {
    const actual = job === undefined ? status : `busy with the job ${job.id} (${job.type})`;
    throw new StateError(`VM ${vm.id} cannot be forked now: it is ${actual}`, {
      vmId: vm.id,
      actual,
      required: ['running'],
      hint: `Wait until it is done (\`qmp-agent qmp ${vm.id} query-jobs\`), then fork it.`,
    });
  }
}

/** QEMU, or this program, was upgraded since the VM was started. */
function upgraded({ id }: VmInside) {
  return (was: string, is: string): TemplateError =>
    new TemplateError(
      'ERR_TEMPLATE_MISMATCH',
      `VM ${id} runs on ${was}, and its children would on ${is}`,
      { hint: 'There was an upgrade meanwhile: stop the VM and start it, then fork it.' },
    );
}
