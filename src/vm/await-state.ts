/** Waiting for a VM's state. */
import { setTimeout as delay } from 'node:timers/promises';
import { TimeoutError } from '../errors.ts';
import type { VmState, WaitOptions } from './api.ts';
import { wrongState } from './find-vm.ts';

/** Default of {@link awaitState}. */
const WAIT_STATE_MS = 60_000;
/** Between two looks at the record. */
const STATE_POLL_MS = 50;

/** See `VmInstance.waitForState`. @param look at the record, now */
export async function awaitState(
  id: string,
  wanted: VmState | readonly VmState[],
  look: () => Promise<VmState>,
  o: WaitOptions,
): Promise<VmState> {
  const states = typeof wanted === 'string' ? [wanted] : wanted;
  const timeoutMs = o.timeoutMs ?? WAIT_STATE_MS;
  const deadline = performance.now() + timeoutMs;
  for (;;) {
    o.signal?.throwIfAborted();
    const state = await look();
    if (states.includes(state)) return state;
    if (state === 'removed') throw wrongState(id, states, state);
    if (performance.now() >= deadline) {
      const operation = `VM ${id} to be ${states.join(' or ')} (it is ${state})`;
      throw new TimeoutError(operation, timeoutMs, { vmId: id });
    }
    await delay(STATE_POLL_MS, undefined, { signal: o.signal }).catch(() => undefined);
  }
}
