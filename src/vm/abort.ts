/** Waits that a signal ends. */
import { setMaxListeners } from 'node:events';

/** One signal may end many calls, whose number has a limit elsewhere; Node would warn of a leak at 11. */
export function allowManyListeners(signal: AbortSignal): void {
  setMaxListeners(0, signal);
}

/**
 * Rejects with the reason of `signal` once it is aborted, at once where it is already. Never
 * resolves; `over` ends it and its listener.
 */
export function rejectOnAbort(signal: AbortSignal, over: AbortSignal): Promise<never> {
  const rejected = new Promise<never>((_resolve, reject) => {
    const onAbort = () => reject(signal.reason as Error);
    if (signal.aborted) return onAbort();
    allowManyListeners(signal);
    signal.addEventListener('abort', onAbort, { once: true, signal: over });
  });
  rejected.catch(() => undefined); // it may come when nobody waits any more
  return rejected;
}

/** Aborted by the first, which there always is, or by any that a caller may have given. */
export function eitherSignal(
  own: AbortSignal,
  ...given: readonly (AbortSignal | undefined)[]
): AbortSignal {
  const others = given.filter((signal) => signal !== undefined);
  return others.length === 0 ? own : AbortSignal.any([own, ...others]);
}

/** Aborted after so many ms, whole ones, and one at least. */
export function lateSignal(timeoutMs: number): AbortSignal {
  return AbortSignal.timeout(Math.max(1, Math.ceil(timeoutMs)));
}
