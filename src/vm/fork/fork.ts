/** Children of a running VM: machines that go on from where it is, while it goes on, too. */
import { availableParallelism } from 'node:os';
import { MAX_TIMEOUT_MS } from '../../config/schema.ts';
import { StateError, TimeoutError } from '../../errors.ts';
import { events } from '../../events.ts';
import { bridgeOf } from '../../network/mode.ts';
import { step } from '../../steps.ts';
import { createOverlay } from '../../storage/index.ts';
import { eitherSignal, lateSignal } from '../abort.ts';
import type { StatePaths, VmForkOptions } from '../api.ts';
import { announceVm, enterVm, firstRecord, launchAndBoot, type CreatedVm } from '../create.ts';
import type { FileLock } from '../file-lock.ts';
import { reapAbandoned, removeVm } from '../gc.ts';
import { newVmId } from '../ids.ts';
import type { LiveVm } from '../live-vm.ts';
import { ownIdentity } from '../process-identity.ts';
import type { VmConfig, VmRecord } from '../record.ts';
import { requireWhole } from '../resume.ts';
import { kill } from '../shutdown.ts';
import { allOrNone } from '../template/all-or-none.ts';
import { becomeOwn } from '../template/own.ts';
import { checkForkOptions, hostnameFrom } from '../vm-config.ts';
import type { VmInside } from '../vm-inside.ts';
import { checkSocketPaths, vmPaths } from '../vm-paths.ts';
import { checkpointFiles, makeCheckpoint } from './checkpoint.ts';
import { freezeRunning, type ForkPoint } from './freeze.ts';

/** A second where little is to be copied; gigabytes on a slow disk take longer. */
const TIMEOUT_MS = 120_000;
/** Each keeps a processor busy until it answers. */
const LAUNCHES_AT_ONCE = Math.max(2, availableParallelism());

/** One fork, under way. */
interface Fork {
  readonly paths: StatePaths;
  readonly checkpointId: string;
  readonly deadline: number;
  readonly signal: AbortSignal;
  readonly children: Child[];
}

interface Child {
  readonly id: string;
  readonly name: string | undefined;
  record?: VmRecord;
  lock?: FileLock;
  made?: CreatedVm;
}

/** Forks a VM: all children, or none and an error. See `VmInstance.fork`. */
export async function forkVm(
  vm: VmInside,
  paths: StatePaths,
  o: VmForkOptions,
): Promise<CreatedVm[]> {
  const startedAt = performance.now();
  const timeoutMs = Math.min(o.timeoutMs ?? TIMEOUT_MS, MAX_TIMEOUT_MS);
  o.signal?.throwIfAborted();
  // All of it is bound, the copying too.
  const late = lateSignal(timeoutMs);
  const signal = eitherSignal(late, o.signal);
  requireOwnAddresses(vm);
  const children = checkForkOptions(o).map((name): Child => ({ id: newVmId(), name }));
  for (const { id } of children) checkSocketPaths(paths, id);
  const checkpointId = newVmId();
  const fork: Fork = { paths, checkpointId, deadline: startedAt + timeoutMs, signal, children };
  await reapAbandoned(paths);
  try {
    const point = await vm.exclusively(['running'], { signal, timeoutMs }, async (live) => {
      requireWhole(vm);
      step('fork', 'enter', vm.id);
      await enterAll(vm, live, fork, o.persistent ?? false);
      step('fork', 'checkpoint', vm.id);
      await makeCheckpoint(paths, checkpointId, vm.id);
      const { fault } = live.watch; // a full disk under a guest that flushes, or QEMU's death
      const guard = AbortSignal.any([fault, signal]);
      const files = checkpointFiles(paths, checkpointId);
      return freezeRunning(vm, live, files, { signal: guard, timeoutMs: leftMs(fork) });
    });
    const made = await bearAll(fork, point);
    const ids = children.map(({ id }) => id);
    const [pausedMs, readyMs] = [rounded(point.pausedMs), rounded(performance.now() - startedAt)];
    events.emit('vm.forked', { vmId: vm.id, children: ids, pausedMs, readyMs });
    return made;
  } catch (error) {
    const isLate = late.aborted && o.signal?.aborted !== true; // before the children are removed
    await undo(fork);
    if (!isLate || error instanceof TimeoutError) throw error;
    throw new TimeoutError(`forking VM ${vm.id}`, timeoutMs, { vmId: vm.id, cause: error });
  } finally {
    for (const { lock } of children) await lock?.release();
  }
}

/** On a bridge the address of a VM is its user's to give, and two cannot have one. @throws StateError */
function requireOwnAddresses({ id, config: { network } }: VmInside): void {
  if (network === undefined || bridgeOf(network) === undefined) return;
  throw new StateError(`VM ${id} has the network ${network}: its children would have its address`, {
    ...{ vmId: id, actual: network, required: ['isolated', 'nat-filtered', 'user'] },
    hint: 'Fork a VM of another network; or make a template, and give each clone an address (--address).',
  });
}

/**
 * Writes the children down, before there is anything that they stand on: nobody removes it then. Each is a
 * clone that is not a machine of its own yet, so where this process dies, all of it is reaped.
 */
async function enterAll(
  vm: VmInside,
  live: LiveVm,
  { paths, checkpointId, children }: Fork,
  persistent: boolean,
): Promise<void> {
  const { accel, ports } = live.run;
  const { diskPath, memoryPath } = checkpointFiles(paths, checkpointId);
  for (const child of children) {
    const { template, rootfsPath } = vm.config;
    const config: VmConfig = {
      ...vm.config,
      accel,
      cid: undefined,
      publish: undefined, // the host has each port once, and the original has it
      hostname: hostnameFrom(child.name ?? child.id),
      persistent,
      template: {
        name: `fork of ${vm.id}`,
        id: checkpointId,
        diskPaths: [diskPath, ...(template?.diskPaths ?? [rootfsPath])],
        ports,
      },
    };
    const startedAt = new Date().toISOString();
    child.record = {
      ...firstRecord(child.id, child.name, config),
      run: { starter: ownIdentity(), startedAt, accel, ports, memoryPath },
    };
    child.lock = await enterVm(paths, child.record);
  }
}

/** Brings the children to life, some at once. */
async function bearAll(fork: Fork, point: ForkPoint): Promise<CreatedVm[]> {
  const waiting = fork.children.values();
  await allOrNone(fork.signal, (signal) =>
    Array.from({ length: LAUNCHES_AT_ONCE }, async () => {
      for (const child of waiting) child.made = await bear(fork, point, child, signal);
    }),
  );
  return fork.children.flatMap(({ made }) => made ?? []);
}

async function bear(
  fork: Fork,
  { from }: ForkPoint,
  { id, record }: Child,
  signal: AbortSignal,
): Promise<CreatedVm> {
  const { paths, checkpointId, deadline } = fork;
  if (record === undefined) throw new TypeError(`child ${id} was not written down`);
  const backing = checkpointFiles(paths, checkpointId).diskPath;
  step('fork', 'disk', id);
  await createOverlay({ path: vmPaths(paths, id).diskPath, backing, signal });
  announceVm(record);
  const { config } = record;
  const hint = 'Try again; if it stays so, restart the VM that is forked.';
  const born = await launchAndBoot({
    ...{ operation: 'fork', paths, record, from, deadline, signal },
    ready: (child, o) => becomeOwn(child, o, { config, hint }),
  });
  return { paths, ...born };
}

/** Removes what there is of the children; what they stood on goes with the last. */
async function undo({ paths, children }: Fork): Promise<void> {
  for (const { id, made, record } of children) {
    if (made !== undefined) {
      await kill(made.live).catch(() => undefined);
      await made.live.release().catch(() => undefined);
    }
    if (record !== undefined) await removeVm(paths, id).catch(() => undefined);
  }
}

function leftMs({ deadline }: Fork): number {
  return Math.max(1, Math.ceil(deadline - performance.now()));
}

function rounded(ms: number): number {
  return Math.round(ms * 10) / 10;
}
