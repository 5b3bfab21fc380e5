/** The end of a stillness that this process has made: vCPUs, what execs have started, and the clock. */
import type { QmpClient } from '../../qmp/index.ts';
import type { GuestSession } from '../guest/index.ts';
import { eitherSignal } from './abort.ts';
import type { LiveVm } from './live-vm.ts';
import type { VmInside } from './vm-inside.ts';
import type { WaitOptions } from './wait-options.ts';

/** For what lets the VM go on, whatever has happened before, where nobody says otherwise. */
const GO_ON_MS = 30_000;

/** What it takes. */
export interface Standing {
  readonly live: LiveVm;
  readonly client: QmpClient;
  /** Or how to come by one, once the vCPUs run. */
  readonly session: GuestSession | ((o: WaitOptions) => Promise<GuestSession>);
}

/**
 * Lets all go on that may stand still, and takes back the record's note that it does. Whoever made it stand
 * may have given up, so his bounds are not taken. A guest that was stopped for want of space tries again.
 * @returns how long it stood, ms
 */
export async function goOn(
  vm: VmInside,
  { live, client, session }: Standing,
  o: WaitOptions & {
    stoppedAt?: number | undefined;
    onStep?: (name: 'go-on' | 'thaw') => void;
  },
): Promise<number> {
  const { fault, outOfSpace } = live.watch;
  const { timeoutMs = GO_ON_MS } = o;
  // Of a disk that was full, the fault is an old one: there may be space by now.
  const guard = outOfSpace === undefined ? eitherSignal(fault, o.signal) : o.signal;
  guard?.throwIfAborted();
  o.onStep?.('go-on');
  await client.execute('cont', {}, { signal: guard, timeoutMs }); // no error where they run
  live.watch.renew();
  const pausedMs = o.stoppedAt === undefined ? 0 : performance.now() - o.stoppedAt;
  // What is left is the guest's to tell: its clock stands still while the vCPUs do.
  o.onStep?.('thaw');
  const bounds = { signal: eitherSignal(live.watch.fault, o.signal), timeoutMs };
  const there = typeof session === 'function' ? await session(bounds) : session;
  const { stoodMs } = await there.thaw(Date.now(), bounds);
  await vm.note('running', { forking: undefined });
  return pausedMs + stoodMs;
}
