/** Waits that a signal ends. */
import { setMaxListeners } from 'node:events';

/** One signal may end many calls, whose number has a limit elsewhere; Node would warn of a leak at 11. */
export function allowManyListeners(signal: AbortSignal): void {
  setMaxListeners(0, signal);
}

/**
 * Calls `listener` once `signal` is aborted, at once where it is already; until `over` is aborted.
 *
 * `addEventListener` could be given `over` itself. But Node keeps no more than the last such clean-up of
 * a target alive (`WeakMap` of target and listener, lib/internal/event_target.js): the others are garbage,
 * and a signal that lives long collects the listeners, and all that they hold on to.
 */
export function onAbort(signal: AbortSignal, over: AbortSignal, listener: () => void): void {
  if (over.aborted) return;
  if (signal.aborted) return listener();
  allowManyListeners(signal);
  allowManyListeners(over);
  signal.addEventListener('abort', listener, { once: true });
  over.addEventListener('abort', () => signal.removeEventListener('abort', listener), {
    once: true,
  });
}

/**
 * Rejects with the reason of `signal` once it is aborted, at once where it is already. Never
 * resolves; `over` ends it and its listener.
 */
export function rejectOnAbort(signal: AbortSignal, over: AbortSignal): Promise<never> {
  const rejected = new Promise<never>((_resolve, reject) => {
    onAbort(signal, over, () => reject(signal.reason as Error));
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

/**
 * Aborted after so many ms, whole ones, and one at least.
 *
 * `AbortSignal.timeout` that has no listener is garbage as soon as nobody holds it, and never comes then; what
 * `AbortSignal.any` makes of it does not hold it (Node 20, lib/internal/abort_controller.js: weak both ways).
 */
export function lateSignal(timeoutMs: number): AbortSignal {
  const signal = AbortSignal.timeout(Math.max(1, Math.ceil(timeoutMs)));
  signal.addEventListener('abort', () => undefined, { once: true });
  return signal;
}
