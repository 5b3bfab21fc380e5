/** First come, first served. */

/** Bounds of one wait. */
export interface QueueWait {
  readonly timeoutMs: number;
  readonly signal?: AbortSignal | undefined;
  /** What the wait rejects with when its time is over. */
  readonly onTimeout: () => Error;
  /** Told when the wait ends without a value. */
  readonly onGiveUp: () => void;
}

interface Waiter<T> {
  serve(value: T): void;
  fail(error: Error): void;
}

/** Those who wait for a value, in the order in which they came. */
export class WaitQueue<T> {
  // A Set keeps the order of insertion, and lets go of one in its midst at no cost.
  readonly #waiters = new Set<Waiter<T>>();

  /** How many wait. */
  get size(): number {
    return this.#waiters.size;
  }

  /** Waits at the end of the queue. Rejects with `onTimeout()`, or the signal's reason. */
  wait({ timeoutMs, signal, onTimeout, onGiveUp }: QueueWait): Promise<T> {
    return new Promise((resolve, reject) => {
      const onAbort = () => waiter.fail(signal?.reason as Error);
      const timer = setTimeout(() => waiter.fail(onTimeout()), timeoutMs);
      const leave = () => {
        this.#waiters.delete(waiter);
        clearTimeout(timer);
        signal?.removeEventListener('abort', onAbort);
      };
      const waiter: Waiter<T> = {
        serve: (value) => {
          leave();
          resolve(value);
        },
        fail: (error) => {
          leave();
          onGiveUp();
          reject(error);
        },
      };
      signal?.addEventListener('abort', onAbort, { once: true });
      this.#waiters.add(waiter);
    });
  }

  /** Gives the value to whoever has waited longest. @returns false where nobody waits */
  serve(value: T): boolean {
    for (const first of this.#waiters) {
      first.serve(value);
      return true;
    }
    return false;
  }

  /** Rejects all who wait. */
  failAll(error: Error): void {
    for (const waiter of [...this.#waiters]) waiter.fail(error);
  }
}
