/** Where a capture writes to: a new file of its own, or somebody's stream. */
import { open, rm, type FileHandle } from 'node:fs/promises';
import type { Writable } from 'node:stream';
import { asDiskFull } from '../../disk-full.ts';
import { ConfigError, HostError } from '../../errors.ts';

/** See above. */
export interface CaptureTarget {
  /**
   * Resolves when the next may come.
   * @throws HostError ERR_HOST_DISK_FULL; what the system or the stream says; the signal's reason
   */
  write(bytes: Buffer, signal: AbortSignal): Promise<void>;
  /** All of it is written; no more comes. */
  close(): Promise<void>;
  /** Nothing was captured: a file that was made for it goes. */
  discard(): Promise<void>;
}

/**
 * Makes it ready.
 * @param to a path where there is nothing yet, or a stream
 * @param section how errors call what it was given by
 * @throws ConfigError there is something already, or no such directory; HostError ERR_HOST_PERMISSION,
 *   ERR_HOST_DISK_FULL
 */
export async function openTarget(to: string | Writable, section: string): Promise<CaptureTarget> {
  if (typeof to !== 'string') return new StreamTarget(to);
  try {
    // Whatever is there is somebody's: a capture of before, or a link that another user has laid for root in /tmp.
    return new FileTarget(await open(to, 'wx', 0o600), to);
  } catch (error) {
    throw explain(error, to, `${section}.file`);
  }
}

function explain(error: unknown, path: string, field: string): unknown {
  const { code, message } = error as NodeJS.ErrnoException;
  if (code === 'EEXIST') {
    return new ConfigError(`${path} is there already`, {
      ...{ field, value: path, cause: error },
      hint: 'Remove it first, or name another file; a pipe or a device takes what is written to stdout.',
    });
  }
  if (code === 'EACCES' || code === 'EPERM' || code === 'EROFS') {
    return new HostError('ERR_HOST_PERMISSION', `${path} cannot be made: ${message}`, {
      hint: 'Name a file in a directory that this user may write to.',
      cause: error,
    });
  }
  return (
    asDiskFull(error, path) ??
    new ConfigError(`${path} cannot be made: ${message}`, {
      ...{ field, value: path, cause: error },
      hint: 'Name a file in a directory that is there.',
    })
  );
}

class FileTarget implements CaptureTarget {
  readonly #file: FileHandle;
  readonly #path: string;
  #bytes = 0;

  constructor(file: FileHandle, path: string) {
    this.#file = file;
    this.#path = path;
  }

  async write(bytes: Buffer): Promise<void> {
    try {
      await this.#file.writeFile(bytes); // from where it stands, all of it
      this.#bytes += bytes.length;
    } catch (error) {
      await this.#file.truncate(this.#bytes).catch(() => undefined); // no half packet
      const hint = 'Free space there; what was captured so far is in the file.';
      throw asDiskFull(error, `the capture ${this.#path}`, hint) ?? error;
    }
  }

  close(): Promise<void> {
    return this.#file.close();
  }

  async discard(): Promise<void> {
    await this.#file.close();
    await rm(this.#path, { force: true });
  }
}

/** Who gave the stream ends it. */
class StreamTarget implements CaptureTarget {
  readonly #stream: Writable;
  #failure: Error | undefined;
  readonly #onError = (error: Error) => (this.#failure = error);

  constructor(stream: Writable) {
    this.#stream = stream;
    stream.on('error', this.#onError);
  }

  async write(bytes: Buffer, signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    // The callback comes when the bytes have left, so that a slow reader holds up tcpdump, and not our memory.
    await new Promise<void>((resolve, reject) => {
      const onAbort = () => reject(signal.reason as Error);
      signal.addEventListener('abort', onAbort, { once: true });
      this.#stream.write(bytes, (error) => {
        signal.removeEventListener('abort', onAbort);
        if (error) reject(this.#failure ?? error);
        else resolve();
      });
    });
  }

  close(): Promise<void> {
    this.#stream.off('error', this.#onError);
    return Promise.resolve();
  }

  discard(): Promise<void> {
    return this.close();
  }
}
