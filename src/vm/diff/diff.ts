/** Which files are different at two checkpoints. */
import { DiffError, NotFoundError, QmpAgentError, TimeoutError } from '../../errors.ts';
import {
  compareVolumes,
  DiskFiles,
  DiskReader,
  Ext4Volume,
  readSnapshots,
  type DiskLayer,
  type FileChange,
} from '../../storage/index.ts';
import { eitherSignal, lateSignal } from '../abort.ts';
import type { StatePaths, WaitOptions } from '../api.ts';
import { stateFault } from '../state-dir.ts';
import { readTreeParts } from '../tree.ts';
import { isDown } from '../vm-info.ts';
import type { VmInside } from '../vm-inside.ts';
import { vmPaths } from '../vm-paths.ts';
import {
  describeRef,
  findCheckpoint,
  parentOf,
  requireRelated,
  type Checkpoint,
  type World,
} from './checkpoints.ts';
import { holdDisk, type HoldOptions } from './hold.ts';
import type { CheckpointDiff, VmDiffOptions } from './types.ts';

export type { CheckpointDiff, VmDiffOptions } from './types.ts';

/** A second, where there is little to compare; gigabytes that were changed take longer. */
const TIMEOUT_MS = 120_000;

/** How a VM's disk is kept as it is; `hold.ts`, for the VM of this id. */
export type HoldDisk = <T>(vmId: string, o: HoldOptions, work: () => Promise<T>) => Promise<T>;

/** A VM in the hands of this process. */
export interface VmInHand extends AsyncDisposable {
  readonly inside: VmInside;
}

/** See `VmInstance.diff`. @param connect takes up another VM */
export function diffVm(
  vm: VmInside,
  paths: StatePaths,
  { from, ...o }: VmDiffOptions,
  connect: (id: string) => Promise<VmInHand>,
): Promise<CheckpointDiff> {
  const own = `vm:${vm.id}`;
  const hold: HoldDisk = (id, ...rest) =>
    id === vm.id ? holdDisk(vm, ...rest) : holding(connect)(id, ...rest);
  if (from === undefined) return diffNamed([own], { ...o, paths, hold });
  return diffNamed([from.startsWith('@') ? own + from : from, own], { ...o, paths, hold });
}

/** Keeps the disks of VMs that are taken up for that. */
export function holding(connect: (id: string) => Promise<VmInHand>): HoldDisk {
  return async (id, o, work) => {
    await using vm = await connect(id);
    return await holdDisk(vm.inside, o, work);
  };
}

/** See `diffCheckpoints`. */
export async function diffNamed(
  [one, other]: readonly [string] | readonly [string, string],
  o: WaitOptions & { paths: StatePaths; hold: HoldDisk },
): Promise<CheckpointDiff> {
  const { paths, hold, timeoutMs = TIMEOUT_MS } = o;
  const parts = await readTreeParts(paths);
  const world: World = { ...parts, diskOf: (id) => vmPaths(paths, id).diskPath };
  const named = findCheckpoint(one, world);
  const [before, after] =
    other === undefined ? [parentOf(named, world), named] : [named, findCheckpoint(other, world)];
  requireRelated(before, after);
  for (const side of [before, after]) await requireSnapshot(side);
  const late = lateSignal(timeoutMs);
  const signal = eitherSignal(late, o.signal);
  try {
    await warmUp(world, [before, after], signal);
    const vms = [
      ...new Set([before, after].flatMap(({ ref }) => (ref.kind === 'vm' ? [ref.id] : []))),
    ];
    let work = () => compare(before.layers, after.layers, signal);
    for (const id of vms.sort().reverse()) {
      const inner = work;
      const now = [before, after].some(({ ref }) => ref.id === id && ref.snapshot === undefined);
      work = () => hold(id, { timeoutMs, signal, onlySnapshots: !now }, inner);
    }
    return { before: before.ref, after: after.ref, changes: await work() };
  } catch (error) {
    if (!late.aborted || o.signal?.aborted === true) throw error;
    const what = `comparing ${describeRef(before.ref)} with ${describeRef(after.ref)}`;
    throw new TimeoutError(what, timeoutMs, { cause: error });
  }
}

/**
 * Compares what two VMs that run stand on, for nothing but speed: it is in the host's memory then, the code
 * is compiled, and the VMs stand still for half as long.
 */
async function warmUp(
  { vms }: World,
  sides: readonly Checkpoint[],
  signal: AbortSignal,
): Promise<void> {
  const isNow = ({ ref }: Checkpoint) => ref.kind === 'vm' && ref.snapshot === undefined;
  const isStopped = ({ ref }: Checkpoint) =>
    vms.some(({ record, state }) => record.id === ref.id && isDown(state));
  if (!sides.some((side) => isNow(side) && !isStopped(side))) return;
  // Not the disks themselves: nobody keeps others from writing to them yet.
  const [before = [], after = []] = sides.map((side) =>
    isNow(side) ? side.layers.slice(1) : side.layers,
  );
  await compare(before, after, signal).catch(() => signal.throwIfAborted());
}

async function compare(
  before: readonly DiskLayer[],
  after: readonly DiskLayer[],
  signal: AbortSignal,
): Promise<FileChange[]> {
  using files = new DiskFiles();
  try {
    const one = new Ext4Volume(await DiskReader.open(files, before));
    const other = new Ext4Volume(await DiskReader.open(files, after));
    return await compareVolumes(one, other, signal);
  } catch (error) {
    signal.throwIfAborted();
    if (error instanceof RangeError) {
      // A number that was read led past the end of a block.
      throw new DiffError('ERR_DIFF_FILE_SYSTEM', `the file system is damaged: ${error.message}`, {
        hint: 'Check it in the VM (`fsck.ext4`), or look for its files there.',
        cause: error,
      });
    }
    if (error instanceof QmpAgentError || (error as NodeJS.ErrnoException).code === undefined)
      throw error;
    throw stateFault(error, after[0]?.path ?? '');
  }
}

/** @throws NotFoundError */
async function requireSnapshot({ ref, layers: [disk] }: Checkpoint): Promise<void> {
  const { id, name, snapshot } = ref;
  if (snapshot === undefined) return;
  const all = await readSnapshots(disk.path);
  if (all.some((one) => one.name === snapshot)) return;
  const candidates = all.map((one) => one.name);
  throw new NotFoundError(`VM ${id} has no snapshot ${JSON.stringify(snapshot)}`, {
    ...{ vmId: id, kind: 'snapshot', query: snapshot, candidates },
    hint:
      candidates.length === 0
        ? `It has none; take one: \`qmp-agent snapshot create ${name ?? id}\`.`
        : `It has ${candidates.join(', ')}.`,
  });
}
