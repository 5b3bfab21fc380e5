/** Where a pool's VMs come from, one source for each strategy. */
import { resolvePaths } from '../config/paths.ts';
import { DEFAULT_CONFIG } from '../config/schema.ts';
import { PoolUncleanError } from '../errors.ts';
import { QEMU_OVERHEAD_BYTES } from '../host-memory.ts';
import { step } from '../steps.ts';
import { eitherSignal, lateSignal, rejectOnAbort } from '../vm/abort.ts';
import { DEFAULT_READY_TIMEOUT_MS, TemplateStore, Vm, type SnapshotInfo } from '../vm/index.ts';
import { checkStrategy } from './options.ts';
import type { PoolOptions, VmSource } from './types.ts';

const MIB = 2 ** 20;
/** The snapshot to which the strategy `savevm` goes back. */
const CLEAN = 'pool-clean';
/** For all steps of a reset in place together: what takes longer is no gain over a new VM. */
const RESET_TIMEOUT_MS = 30_000;
/**
 * A guest that wrote that much to its console since the last reset may be in the midst of having its log
 * rotated, and the log cannot be emptied for sure.
 */
const LOUD_CONSOLE_BYTES = 2 ** 20;

/** The source of the strategy that was asked for. @throws ConfigError; NotFoundError, TemplateError */
export async function sourceOf(pool: string, o: PoolOptions): Promise<VmSource> {
  const strategy = checkStrategy(o);
  if (strategy === 'clone') return cloneSource(o.template ?? '', o);
  return strategy === 'savevm' ? savevmSource(pool, o) : recreateSource(o);
}

/** `clone`: each VM goes on from where the template stands, and is used once. */
async function cloneSource(template: string, o: PoolOptions): Promise<VmSource> {
  const { manifest } = await new TemplateStore(o.vm?.paths ?? resolvePaths()).get(template);
  return {
    strategy: 'clone',
    bytesPerVm: bytesOf(manifest.config.memoryMib),
    create: (signal) => made(o, signal, () => Vm.fromTemplate(template, { ...o.vm, signal })),
  };
}

/** `recreate`: each VM boots, and is used once. */
function recreateSource(o: PoolOptions): VmSource {
  return {
    strategy: 'recreate',
    bytesPerVm: bytesOf(o.vm?.memoryMib),
    create: (signal) => made(o, signal, () => Vm.create({ ...o.vm, signal })),
  };
}

/** `savevm`: each VM boots, and is put back after use to where it was before anybody used it. */
function savevmSource(pool: string, o: PoolOptions): VmSource {
  return putBackInPlace(pool, recreateSource(o));
}

/** VMs of another source, put back in place after use. */
export function putBackInPlace(pool: string, source: VmSource): VmSource {
  const cleanOf = new WeakMap<Vm, SnapshotInfo>();
  return {
    ...source,
    strategy: 'savevm',
    create: async (signal) => {
      const vm = await source.create(signal);
      try {
        cleanOf.set(vm, await vm.snapshots.create(CLEAN, { signal }));
        await vm.clearLogs(); // the first user sees as much of the past as the second
        return vm;
      } catch (error) {
        await vm.close();
        throw error;
      }
    },
    reset: async (vm, signal) => {
      step('pool.reset', 'check', vm.id);
      const bounds = eitherSignal(signal, lateSignal(RESET_TIMEOUT_MS));
      await putBack(vm, { pool, clean: cleanOf.get(vm), signal: bounds });
      step('pool.reset', 'warm', vm.id);
      await warmUp(vm, bounds);
    },
  };
}

/**
 * Puts a VM back to its clean snapshot, with nothing of its last user beside it.
 * @throws PoolUncleanError, and what `vm.snapshots` throws
 */
async function putBack(
  vm: Vm,
  { pool, clean, signal }: { pool: string; clean: SnapshotInfo | undefined; signal: AbortSignal },
): Promise<void> {
  const unclean = (what: string) =>
    new PoolUncleanError(`VM ${vm.id} cannot be made as new: ${what}`, { pool, vmId: vm.id });
  // A paused VM would stay so, and not be given fresh entropy.
  if (vm.state !== 'running') throw unclean(`it is ${vm.state}`);
  const found = await vm.snapshots.list({ signal });
  if (clean === undefined || found.length !== 1 || !isSame(clean, found[0]))
    throw unclean(`its snapshots are ${found.map(({ name }) => name).join(', ') || 'gone'}`);
  const console = await vm.logs({ tailBytes: LOUD_CONSOLE_BYTES });
  if (Buffer.byteLength(console) >= LOUD_CONSOLE_BYTES) throw unclean('its console is too loud');
  step('pool.reset', 'restore', vm.id);
  await vm.snapshots.restore(CLEAN, { signal });
  step('pool.reset', 'clean', vm.id);
  await vm.clearLogs();
}

function isSame(one: SnapshotInfo, other: SnapshotInfo | undefined): boolean {
  return (
    one.name === other?.name &&
    one.createdAt === other.createdAt &&
    one.sizeBytes === other.sizeBytes &&
    one.description === other.description
  );
}

/** A VM that is ready to be lent; nothing of it is left where a step fails. */
async function made(
  { vm: options, prepare }: PoolOptions,
  signal: AbortSignal,
  make: () => Promise<Vm>,
): Promise<Vm> {
  const timeoutMs = options?.timeoutMs ?? DEFAULT_READY_TIMEOUT_MS;
  const vm = await make();
  const bounds = eitherSignal(signal, lateSignal(timeoutMs));
  try {
    await warmUp(vm, bounds);
    if (prepare !== undefined) await within(prepare(vm, bounds), bounds);
    return vm;
  } catch (error) {
    await vm.close();
    throw error;
  }
}

/** A caller's own code may not look at the signal that it is given. */
async function within(work: Promise<void>, signal: AbortSignal): Promise<void> {
  const over = new AbortController();
  try {
    await Promise.race([work, rejectOnAbort(signal, over.signal)]);
  } finally {
    over.abort();
  }
}

/** The first command in a VM takes several times as long as the second: it is not the user's. */
async function warmUp(vm: Vm, signal: AbortSignal): Promise<void> {
  await vm.commands.run(['true'], { signal });
}

/** What a VM with so much memory could use of the host's at most. */
function bytesOf(memoryMib: number = DEFAULT_CONFIG.vm.memoryMib): number {
  return memoryMib * MIB + QEMU_OVERHEAD_BYTES;
}
