import { setMaxListeners } from 'node:events';
import { TimeoutError } from '../src/errors.ts';

/** How long a wait may go on. */
export interface WaitOptions {
  /** Ends the wait; it then rejects with `signal.reason`. */
  signal?: AbortSignal | undefined;
  /** Milliseconds; `Infinity` for no limit. */
  timeoutMs?: number | undefined;
}

/** setTimeout's own limit: a longer delay would fire at once. */
const MAX_TIMER_MS = 2 ** 31 - 1;

/**
 * Calls `onExpire` once, and never before it has returned: with `signal.reason` when the signal
 * aborts, or with a TimeoutError when the time is up. Gives the function that disarms both.
 */
export function armDeadline(
  operation: string,
  { signal, timeoutMs }: WaitOptions,
  hint: string,
  onExpire: (reason: unknown) => void,
): () => void {
  let armed = true;
  let timer: NodeJS.Timeout | undefined;
  const onAbort = (): void => {
    expire(signal?.reason);
  };
  const disarm = (): void => {
    armed = false;
    clearTimeout(timer);
    signal?.removeEventListener('abort', onAbort);
  };
  const expire = (reason: unknown): void => {
    if (!armed) return;
    disarm();
    onExpire(reason);
  };
  if (timeoutMs !== undefined && timeoutMs <= MAX_TIMER_MS) {
    timer = setTimeout(() => {
      expire(new TimeoutError(operation, timeoutMs, { hint }));
    }, timeoutMs);
  }
  if (signal) {
    // Many calls may share a signal, and their number has a limit; Node would warn of a leak at 11.
    setMaxListeners(0, signal);
    signal.addEventListener('abort', onAbort, { once: true });
    if (signal.aborted) queueMicrotask(onAbort);
  }
  return disarm;
}
