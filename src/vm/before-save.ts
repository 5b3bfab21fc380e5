/** What a guest is asked for before its state is saved. */
import { eitherSignal, lateSignal } from './abort.ts';
import { freshEntropy } from './entropy.ts';
import type { LiveVm } from './live-vm.ts';

/** Most that it may take: of a guest that writes all the time, what is left stays in its memory. */
const TIMEOUT_MS = 5_000;

/**
 * Has the guest flush to its disk what it has written: memory and disk fit each other without, but `diff` sees disks
 * only. And what each restore asks it for, it is asked for once before: what the agent must load for that is then in
 * the memory that is saved (0.1 s less of each restore, under emulation). A guest that does not answer in time,
 * or not at all, goes on as it is.
 */
export async function prepareToBeSaved(
  live: LiveVm,
  given: AbortSignal | undefined,
): Promise<void> {
  const signal = eitherSignal(live.watch.fault, lateSignal(TIMEOUT_MS), given);
  const o = { timeoutMs: TIMEOUT_MS, signal };
  try {
    const session = await live.link.open(o);
    await session.wake({ entropy: freshEntropy(), unixMs: Date.now() }, o);
    await session.sync(o);
  } catch {
    given?.throwIfAborted();
  }
}
