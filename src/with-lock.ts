/** One at a time, across processes: `flock(2)` on a file. */
import { mkdir, open, stat, type FileHandle } from 'node:fs/promises';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { libc, LibcError, LOCK_EX, LOCK_NB } from '../guest-agent/libc.ts';

/** Pause between two tries: a blocking flock would stop this process's event loop. */
const RETRY_MS = 10;

/**
 * A lock that is held until {@link FileHandle.close}. Undefined: another process holds it. Who holds it may
 * remove the file.
 */
export async function tryLock(file: string): Promise<FileHandle | undefined> {
  const calls = await libc();
  for (;;) {
    const handle = await open(file, 'a', 0o600);
    try {
      calls.flock(handle.fd, LOCK_EX | LOCK_NB);
      // Opened before its holder removed it, or its directory, it would let two holders in.
      if (await isAt(file, handle)) return handle;
    } catch (error) {
      await handle.close();
      if (error instanceof LibcError && error.code === 'EWOULDBLOCK') return undefined;
      throw error;
    }
    await handle.close();
  }
}

/** Whether that name is still that file's. */
async function isAt(file: string, handle: FileHandle): Promise<boolean> {
  const [own, there] = await Promise.all([
    handle.stat(),
    stat(file).catch((error: unknown) => {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
      throw error;
    }),
  ]);
  return own.ino === there?.ino && own.dev === there.dev;
}

/**
 * Waits for the lock and runs `work` under it. The kernel frees the lock when its holder dies, so it
 * is never stale. Waits as long as the other holder works; `signal` ends the wait.
 */
export async function withLock<T>(
  file: string,
  signal: AbortSignal | undefined,
  work: () => Promise<T>,
): Promise<T> {
  await mkdir(path.dirname(file), { recursive: true });
  for (;;) {
    signal?.throwIfAborted();
    const lock = await tryLock(file);
    if (lock !== undefined) {
      try {
        return await work();
      } finally {
        await lock.close(); // frees it
      }
    }
    await delay(RETRY_MS, undefined, signal === undefined ? {} : { signal });
  }
}
