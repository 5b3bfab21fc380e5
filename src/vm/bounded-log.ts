/**
 * Logs of a VM that a hostile guest cannot grow without end, with no living process to watch them.
 *
 * QEMU appends the serial console to a file and knows no limit, and a detached VM has nobody on the
 * host to rotate it. But QEMU runs under RLIMIT_FSIZE (set in `launcher.ts`), and the kernel applies
 * that limit to the *offset* of a write, not to the space a file takes. So each log starts as a hole
 * of {@link LOG_BASE_BYTES} that takes no space, and appending ends after {@link LOG_CAP_BYTES}: the
 * write fails with EFBIG, QEMU drops the output and the guest runs on. Disks stay far below the
 * limit. Whichever process next looks at the VM makes room again ({@link BoundedLog.rotate}).
 */
import { watch } from 'node:fs';
import { open, rename, rm, stat, truncate, type FileHandle } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import { HostError, StateDirError } from '../errors.ts';
import { stateFault } from './state-dir.ts';

/** RLIMIT_FSIZE of every QEMU: twice the largest disk, and below what ext4 with 1 KiB blocks allows. */
export const FILE_LIMIT_BYTES = 2 ** 41;
/** Most that a log takes on the host. A rotated one is kept beside it, so twice this a log. */
export const LOG_CAP_BYTES = 4 * 2 ** 20;
/** Where a log's text starts in its file. */
export const LOG_BASE_BYTES = FILE_LIMIT_BYTES - LOG_CAP_BYTES;
/** Rotated from here on, so that what follows still has room. */
const ROTATE_AT_BYTES = LOG_CAP_BYTES / 2;
/** Default of `tail`. */
export const DEFAULT_TAIL_BYTES = 64 * 1024;
/** Largest piece read at once. */
const READ_BYTES = 64 * 1024;
/** A look at the file at least this often, should inotify be out of instances or miss something. */
const POLL_MS = 250;

/** One log file. Holds no resources. */
export class BoundedLog {
  readonly path: string;

  constructor(path: string) {
    this.path = path;
  }

  /** Where the log before the last rotation is kept. */
  get rotatedPath(): string {
    return `${this.path}.1`;
  }

  /**
   * Makes an empty log, or leaves an existing one, with the hole that bounds it.
   * @throws StateDirError the directory cannot be written, or holds no files of 2 TiB (apparent size)
   * @throws HostError ERR_HOST_DISK_FULL
   */
  async ensure(): Promise<void> {
    try {
      await using file = await open(this.path, 'a', 0o600);
      if ((await file.stat()).size < LOG_BASE_BYTES) await file.truncate(LOG_BASE_BYTES);
    } catch (error) {
      const fault = stateFault(error, this.path);
      if (fault instanceof HostError) throw fault; // a full disk
      throw new StateDirError(
        `the log ${this.path} cannot be created: ${(error as Error).message}`,
        {
          path: this.path,
          hint: 'Put the state directory on a local file system with sparse files (ext4, xfs, btrfs, tmpfs) that is writable.',
          cause: error,
        },
      );
    }
  }

  /** Bytes of text in it; 0 where it is missing. */
  async usedBytes(): Promise<number> {
    const facts = await stat(this.path).catch(() => undefined);
    return Math.max(0, (facts?.size ?? 0) - LOG_BASE_BYTES);
  }

  /** The last bytes of text, from this log and the rotated one before it; '' where there is none. */
  async tail(maxBytes: number = DEFAULT_TAIL_BYTES): Promise<string> {
    const recent = await readTail(this.path, LOG_BASE_BYTES, maxBytes);
    if (recent.length >= maxBytes) return recent.toString('utf8');
    const older = await readTail(this.rotatedPath, 0, maxBytes - recent.length);
    return Buffer.concat([older, recent]).toString('utf8');
  }

  /** The last bytes of text since the last rotation. */
  async recent(maxBytes: number): Promise<string> {
    return (await readTail(this.path, LOG_BASE_BYTES, maxBytes)).toString('utf8');
  }

  /** Moves what is there out of the way: a new life of QEMU starts with an empty log. */
  async startAnew(): Promise<void> {
    await this.ensure();
    if ((await this.usedBytes()) > 0) await this.rotate(0);
  }

  /** Empties it, the rotated one too; what is appended afterwards is kept. */
  async clear(): Promise<void> {
    await rm(this.rotatedPath, { force: true });
    await truncate(this.path, LOG_BASE_BYTES);
  }

  /**
   * Makes room where the log is half full: its text moves to {@link rotatedPath}, replacing what was
   * there. What the guest writes between the copy and the cut is lost.
   * @returns whether it did
   */
  async rotate(fromBytes: number = ROTATE_AT_BYTES): Promise<boolean> {
    if ((await this.usedBytes()) < fromBytes) return false;
    const text = await readTail(this.path, LOG_BASE_BYTES, LOG_CAP_BYTES);
    const temporary = `${this.rotatedPath}.tmp`;
    try {
      await using file = await open(temporary, 'w', 0o600);
      await file.writeFile(text);
      await rename(temporary, this.rotatedPath);
    } catch {
      await rm(temporary, { force: true }); // a full disk: then only the cut matters
    }
    await truncate(this.path, LOG_BASE_BYTES);
    return true;
  }

  /**
   * What is there from `fromOffset` on (default: all), then what comes, until the signal. Goes on
   * after a rotation by anybody.
   */
  async *follow(o: { signal: AbortSignal; fromOffset?: number }): AsyncGenerator<Buffer, void> {
    let offset = o.fromOffset ?? LOG_BASE_BYTES;
    const bell = new ChangeBell(this.path);
    try {
      for (;;) {
        const size = (await stat(this.path).catch(() => undefined))?.size;
        if (size === undefined) return; // removed with its VM
        if (size < offset) offset = LOG_BASE_BYTES; // rotated
        while (offset < size) {
          const chunk = await readAt(this.path, offset, Math.min(READ_BYTES, size - offset));
          if (chunk.length === 0) break;
          offset += chunk.length;
          yield chunk;
        }
        if (o.signal.aborted) return; // after a last look: what came before the end is told
        await bell.wait(o.signal);
      }
    } finally {
      bell.close();
    }
  }
}

/** Rings when a file changes, or after {@link POLL_MS} without that. */
class ChangeBell {
  readonly #watcher: ReturnType<typeof watch> | undefined;
  #changed = false;
  #wake: (() => void) | undefined;

  constructor(path: string) {
    try {
      this.#watcher = watch(path, { persistent: false }, () => {
        this.#changed = true;
        this.#wake?.();
      });
      this.#watcher.on('error', () => undefined); // the poll goes on
    } catch {
      this.#watcher = undefined;
    }
  }

  async wait(signal: AbortSignal): Promise<void> {
    if (!this.#changed) {
      const awake = new AbortController();
      this.#wake = () => {
        awake.abort();
      };
      const either = AbortSignal.any([signal, awake.signal]);
      await delay(POLL_MS, undefined, { signal: either, ref: false }).catch(() => undefined);
    }
    this.#changed = false;
  }

  close(): void {
    this.#watcher?.close();
  }
}

async function readTail(path: string, baseOffset: number, maxBytes: number): Promise<Buffer> {
  const size = (await stat(path).catch(() => undefined))?.size ?? 0;
  const start = Math.max(baseOffset, size - maxBytes);
  return size > start ? await readAt(path, start, size - start) : Buffer.alloc(0);
}

async function readAt(path: string, offset: number, length: number): Promise<Buffer> {
  let file: FileHandle | undefined;
  try {
    file = await open(path, 'r');
    const { buffer, bytesRead } = await file.read(Buffer.alloc(length), 0, length, offset);
    return buffer.subarray(0, bytesRead);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return Buffer.alloc(0);
    throw error;
  } finally {
    await file?.close();
  }
}
