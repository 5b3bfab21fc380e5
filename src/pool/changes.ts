/** Waits for something to hold of what changes now and then. */

/** Bounds of one wait. */
export interface ChangeWait {
  readonly holds: () => boolean;
  readonly timeoutMs: number;
  readonly signal?: AbortSignal | undefined;
  /** What the wait rejects with when its time is over. */
  readonly onTimeout: () => Error;
  /** Whether an error that is told of ends the wait. */
  readonly failsWith: (error: unknown) => boolean;
}

/** Told of each change; knows who waits for which. */
export class Changes {
  readonly #watchers = new Set<(error?: unknown) => void>();

  /** Something has changed, or gone wrong. */
  tell(error?: unknown): void {
    for (const watcher of [...this.#watchers]) watcher(error);
  }

  /** Waits until `holds`. Rejects with an error told of, `onTimeout()`, or the signal's reason. */
  until({ holds, timeoutMs, signal, onTimeout, failsWith }: ChangeWait): Promise<void> {
    if (holds()) return Promise.resolve();
    return new Promise((resolve, reject) => {
      const settle = (end: () => void) => {
        clearTimeout(timer);
        signal?.removeEventListener('abort', onAbort);
        this.#watchers.delete(watcher);
        end();
      };
      const fail = (error: Error) => settle(() => reject(error));
      const watcher = (error?: unknown) => {
        if (error !== undefined && failsWith(error)) fail(error as Error);
        else if (holds()) settle(resolve);
      };
      const onAbort = () => fail(signal?.reason as Error);
      const timer = setTimeout(() => fail(onTimeout()), timeoutMs);
      signal?.addEventListener('abort', onAbort, { once: true });
      this.#watchers.add(watcher);
    });
  }
}
