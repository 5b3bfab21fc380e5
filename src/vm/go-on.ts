/** The end of a stillness that this process has made: vCPUs, what execs have started, and the clock. */
import type { QmpClient } from '../../qmp/index.ts';
import type { GuestSession } from '../guest/index.ts';
import type { LiveVm } from './live-vm.ts';
import type { VmInside } from './vm-inside.ts';

/** For what lets the VM go on, whatever has happened before. */
const GO_ON_MS = 30_000;

/** What it takes. */
export interface Standing {
  readonly live: LiveVm;
  readonly client: QmpClient;
  readonly session: GuestSession;
}

/**
 * Lets all go on that may stand still, and takes back the record's note that it does. Bounds of its own:
 * whoever made it stand may have given up. A guest that was stopped for want of space tries again.
 * @returns how long it stood, ms
 */
export async function goOn(
  vm: VmInside,
  { live, client, session }: Standing,
  o: { stoppedAt?: number | undefined; onStep?: (name: 'go-on' | 'thaw') => void },
): Promise<number> {
  const { fault, outOfSpace } = live.watch;
  if (outOfSpace === undefined) fault.throwIfAborted();
  o.onStep?.('go-on');
  await client.execute('cont', {}, { timeoutMs: GO_ON_MS }); // no error where they run
  live.watch.renew();
  const pausedMs = o.stoppedAt === undefined ? 0 : performance.now() - o.stoppedAt;
  // What is left is the guest's to tell: its clock stands still while the vCPUs do.
  o.onStep?.('thaw');
  const bounds = { signal: live.watch.fault, timeoutMs: GO_ON_MS };
  const { stoodMs } = await session.thaw(Date.now(), bounds);
  await vm.note('running', { forking: undefined });
  return pausedMs + stoodMs;
}
