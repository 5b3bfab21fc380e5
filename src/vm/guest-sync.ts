/** What a guest has written and not yet flushed to its disk. */
import { eitherSignal, lateSignal } from './abort.ts';
import type { LiveVm } from './live-vm.ts';

/** Most that it may take: of a guest that writes all the time, what is left stays in its memory. */
const SYNC_MS = 5_000;

/** Has the guest flush. One that does not answer in time, or not at all, goes on as it is. */
export async function flushGuest(live: LiveVm, given: AbortSignal | undefined): Promise<void> {
  const signal = eitherSignal(live.watch.fault, lateSignal(SYNC_MS), given);
  const o = { timeoutMs: SYNC_MS, signal };
  try {
    const session = await live.link.open(o);
    await session.sync(o);
  } catch {
    given?.throwIfAborted();
  }
}
