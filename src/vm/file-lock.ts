/**
 * Locks between processes: `flock(2)` on a file. The kernel frees them when their holder dies, so
 * no lock is ever stale.
 */
import type { FileHandle } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import { TimeoutError } from '../errors.ts';
import { tryLock } from '../with-lock.ts';
import type { WaitOptions } from './api.ts';
import { stateFault } from './state-dir.ts';

/** Pause between two tries: a blocking flock would stop this process's event loop. */
const RETRY_MS = 15;
/** Default wait for a lock. State changes hold one for as long as a shutdown may take. */
const DEFAULT_TIMEOUT_MS = 60_000;

/** A lock that this process holds. */
export class FileLock implements AsyncDisposable {
  readonly path: string;
  #handle: FileHandle | undefined;

  private constructor(path: string, handle: FileHandle) {
    this.path = path;
    this.#handle = handle;
  }

  /**
   * Waits for the lock. The file is created where it is missing; its directory must exist.
   * @throws TimeoutError another process held it for `timeoutMs` (default 60 000)
   * @throws what {@link tryAcquire} throws
   */
  static async acquire(
    path: string,
    o: WaitOptions & { operation?: string } = {},
  ): Promise<FileLock> {
    const timeoutMs = o.timeoutMs ?? DEFAULT_TIMEOUT_MS;
    const deadline = performance.now() + timeoutMs;
    for (;;) {
      o.signal?.throwIfAborted();
      const lock = await FileLock.tryAcquire(path);
      if (lock !== undefined) return lock;
      if (performance.now() >= deadline) {
        throw new TimeoutError(o.operation ?? `lock ${path}`, timeoutMs, {
          hint: 'Another qmp-agent process is working on it; wait for it or end it.',
        });
      }
      await delay(RETRY_MS, undefined, { signal: o.signal }).catch(() => undefined);
    }
  }

  /**
   * Takes the lock where it is free; undefined where another holder has it.
   * @throws StateDirError, HostError ERR_HOST_DISK_FULL; the system's own error (ENOENT) where the
   *   directory is gone
   */
  static async tryAcquire(path: string): Promise<FileLock | undefined> {
    const handle = await tryLock(path).catch((error: unknown) => {
      const { syscall, code } = error as NodeJS.ErrnoException;
      throw syscall === 'open' && code !== 'ENOENT' ? stateFault(error, path) : error;
    });
    return handle === undefined ? undefined : new FileLock(path, handle);
  }

  /** Gives it back. Idempotent. */
  async release(): Promise<void> {
    const handle = this.#handle;
    this.#handle = undefined;
    await handle?.close(); // closing the last descriptor frees the lock: flock(2)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.release();
  }
}
