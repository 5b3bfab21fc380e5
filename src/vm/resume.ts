/** Letting vCPUs run again, after a pause, a restore or a suspend. */
import { GuestConnectError, StateError } from '../errors.ts';
import type { CallOptions, WakeSpec } from '../guest/index.ts';
import { step } from '../steps.ts';
import { eitherSignal } from './abort.ts';
import type { WaitOptions } from './api.ts';
import { freshEntropy } from './entropy.ts';
import { wrongState } from './find-vm.ts';
import { endBrokenFork } from './fork/broken.ts';
import { setClock } from './guest-clock.ts';
import { cutConnectionsOf, guestNetworkOf } from './network-of.ts';
import type { LiveVm } from './live-vm.ts';
import type { VmInside } from './vm-inside.ts';

/** Of a guest that was restored: until its agent has answered and done all that is asked of it. */
const RENEW_MS = 30_000;

/** Resumes a paused VM; inside `exclusively`. @throws StateError it runs, or what it holds is no VM */
export async function resumeVm(inside: VmInside, live: LiveVm, o: WaitOptions): Promise<void> {
  requireWhole(inside);
  const { run } = inside;
  if (run?.forking === true) return endBrokenFork(inside, live, o);
  if (run?.restoring === 'loaded' || run?.parked === true)
    return wakeRestored(inside, live, 'resume', o);
  await live.qmp.use(async (client) => {
    const { running } = await client.execute('query-status', {}, o);
    if (running) throw wrongState(inside.id, ['paused'], 'running');
    await client.execute('cont', {}, o);
  }, o);
  live.watch.renew();
  await inside.note('running');
  await setClock(live);
}

/**
 * Lets a guest run that was put back to where it was once: it is reached anew, draws random bytes that
 * it has not drawn before, and knows what time it is. Where that fails it is stopped again, as nobody
 * could trust its keys.
 * @throws GuestConnectError it is paused then; the signal's reason, the VM's fault
 */
export async function wakeRestored(
  inside: VmInside,
  live: LiveVm,
  operation: 'snapshot.restore' | 'resume',
  { signal, timeoutMs = RENEW_MS }: WaitOptions,
): Promise<void> {
  const isParked = inside.run?.parked === true;
  step(operation, 'wake', inside.id);
  // An agent that we have no session with may stand in the midst of one that nobody else remembers.
  if (live.link.current === undefined) await live.link.restored();
  // Also where it was put back while it was paused, and goes on only now.
  const isPutBack = operation === 'snapshot.restore' || inside.run?.restoring !== undefined;
  if (isPutBack) await cutConnectionsOf(inside, { signal, timeoutMs });
  const network = await guestNetworkOf(inside);
  let isWoken = false; // not where there is a session already
  const wake = (): WakeSpec => {
    isWoken = true;
    return { entropy: freshEntropy(), unixMs: Date.now(), network };
  };
  live.link.wakeWith(wake); // who waits for the guest may reach it before we do
  await live.qmp.use((client) => client.execute('cont', {}, { signal }), { signal });
  try {
    step(operation, 'renew', inside.id);
    const bounds = boundsUntil(
      performance.now() + timeoutMs,
      eitherSignal(live.watch.fault, signal),
    );
    const session = await live.link.open(bounds());
    if (!isWoken) {
      live.link.wakeWith(undefined);
      await session.wake(wake(), bounds());
    }
    if (isParked) await session.thaw(Date.now(), bounds());
  } catch (error) {
    await live.qmp.use((client) => client.execute('stop')).catch(() => undefined);
    signal?.throwIfAborted();
    live.watch.fault.throwIfAborted();
    throw new GuestConnectError(
      `VM ${inside.id} ${isParked ? 'is loaded' : 'was restored'} and is paused: its agent could not be given fresh entropy and the time`,
      {
        vmId: inside.id,
        cause: error,
        hint: `Try once more (\`qmp-agent resume ${inside.id}\`), or ${isParked ? 'kill the VM' : 'restore another snapshot'}.`,
      },
    );
  }
  live.watch.renew();
  step(operation, 'record', inside.id);
  await inside.note('running', { restoring: undefined, parked: undefined });
}

/** @throws StateError a restore broke off half-way */
export function requireWhole(inside: VmInside): void {
  if (inside.run?.restoring !== 'loading') return;
  const { id } = inside;
  throw new StateError(`VM ${id} is between two states: a restore has broken off`, {
    vmId: id,
    actual: 'half restored',
    required: ['running', 'paused'],
    hint: `Restore a snapshot (\`qmp-agent snapshot restore ${id} NAME\`), or kill the VM.`,
  });
}

/** @throws StateError a suspend or a resume broke off */
export function requireUnparked(inside: VmInside): void {
  if (inside.run?.parked !== true) return;
  const { id } = inside;
  throw new StateError(`what runs in VM ${id} stands still: a suspend or a resume has broken off`, {
    vmId: id,
    actual: 'parked',
    required: ['running', 'paused'],
    hint: `Resume it: \`qmp-agent resume ${id}\`.`,
  });
}

/** What is left until a deadline, for one call after the other. */
function boundsUntil(deadline: number, signal: AbortSignal): () => CallOptions {
  return () => ({ signal, timeoutMs: Math.max(1, Math.ceil(deadline - performance.now())) });
}
