/** The one place that runs nft. */
import { constants } from 'node:fs';
import { type FileHandle, open, unlink } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { randomUUID } from 'node:crypto';
import { execa } from 'execa';
import { TimeoutError } from '../src/errors.ts';
import { readFailure } from './failure.ts';

/** How long one call of nft may take where nothing else is said. */
const DEFAULT_TIMEOUT_MS = 30_000;
/** Most output that is read: a thousand VMs' rules are some 10 MB as JSON. */
const MAX_OUTPUT_BYTES = 256 * 2 ** 20;
/** Linux's, which Node does not name: a file without a name, gone with its last descriptor (open(2)). */
const O_TMPFILE = 0o20000000 | constants.O_DIRECTORY;
/** A tmpfs on all Linux systems; not the disk, which may be slow or full. */
const MEMORY_DIR = '/dev/shm';

/** What every call may be given. */
export interface NftCallOptions {
  readonly signal?: AbortSignal | undefined;
  /** Default 30 000. */
  readonly timeoutMs?: number | undefined;
}

/**
 * Runs nft on commands of libnftables-json(5).
 *
 * @param command how to call nft, e.g. `['nft']`
 * @returns what it wrote to stdout
 * @throws NetworkRulesError, HostError (no nft, no permission), TimeoutError, the signal's reason
 */
export async function runNft(
  command: readonly string[],
  json: string,
  o: NftCallOptions = {},
): Promise<string> {
  o.signal?.throwIfAborted();
  const timeoutMs = o.timeoutMs ?? DEFAULT_TIMEOUT_MS;
  await using input = await nameless(json);
  const [file = 'nft', ...args] = command;
  const result = await execa(file, [...args, '-j', '-f', '-'], {
    // Any descriptor will do; execa's types know of its own only.
    stdin: input.handle.fd as 0,
    reject: false,
    timeout: timeoutMs,
    maxBuffer: MAX_OUTPUT_BYTES,
    forceKillAfterDelay: 1000,
    env: { LC_ALL: 'C' },
    ...(o.signal === undefined ? {} : { cancelSignal: o.signal }),
  });
  o.signal?.throwIfAborted();
  if (result.timedOut) throw new TimeoutError('nft', timeoutMs);
  if (result.failed) throw readFailure(result);
  return result.stdout;
}

/**
 * A file with this content whose descriptor can be nft's stdin. nft opens /dev/stdin anew, which works with a file but
 * not with the socket that Node makes of a pipe (ENXIO); an argument would be limited to 128 KiB.
 */
async function nameless(content: string): Promise<{ handle: FileHandle } & AsyncDisposable> {
  const handle = await open(MEMORY_DIR, O_TMPFILE | constants.O_RDWR, 0o600).catch(openUnlinked);
  const dispose = { handle, [Symbol.asyncDispose]: () => handle.close() };
  try {
    await writeAtStart(handle, Buffer.from(content));
    return dispose;
  } catch (error) {
    await handle.close();
    throw error;
  }
}

/** Leaves the descriptor's position, which nft shares, where it is: 1.1.3 reads from there. */
async function writeAtStart(handle: FileHandle, content: Buffer): Promise<void> {
  for (let at = 0; at < content.length;) {
    const { bytesWritten } = await handle.write(content, at, content.length - at, at);
    at += bytesWritten;
  }
}

/** Where /dev/shm is not there, not ours to write, or of a kind without nameless files. */
async function openUnlinked(): Promise<FileHandle> {
  const path = join(tmpdir(), `qmp-agent-nft-${randomUUID()}`);
  const handle = await open(path, 'wx+', 0o600);
  await unlink(path);
  return handle;
}
