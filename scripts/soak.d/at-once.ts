/** The same work many times, some of it at once. */

/** What every part of the soak is told. */
export interface SoakOptions {
  readonly count: number;
  /** That many at the same time. Default 1. */
  readonly atOnce?: number | undefined;
  readonly signal?: AbortSignal | undefined;
  /** Once it is aborted no more are begun. */
  readonly enough?: AbortSignal | undefined;
  /** Told how many are done. */
  readonly onDone?: ((done: number) => void) | undefined;
}

/**
 * Does `work` for 1 … count. Where one fails no more are begun, and what runs is waited for.
 * @returns how many were done
 * @throws what the first that failed threw
 */
export async function manyTimes(
  { count, atOnce = 1, signal, enough, onDone }: SoakOptions,
  work: (turn: number) => Promise<void>,
): Promise<number> {
  let [next, done, failed] = [1, 0, false];
  const worker = async (): Promise<void> => {
    while (next <= count && !failed && enough?.aborted !== true) {
      signal?.throwIfAborted();
      const turn = next;
      next += 1;
      try {
        await work(turn);
      } catch (error) {
        failed = true;
        throw error;
      }
      done += 1;
      onDone?.(done);
    }
  };
  const ends = await Promise.allSettled(Array.from({ length: Math.min(atOnce, count) }, worker));
  for (const end of ends) if (end.status === 'rejected') throw end.reason;
  return done;
}
