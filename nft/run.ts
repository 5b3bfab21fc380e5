/** The one place that runs nft. */
import { spawn, type ChildProcess } from 'node:child_process';
import { constants } from 'node:fs';
import { type FileHandle, open, unlink } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import { randomUUID } from 'node:crypto';
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
  const timeoutMs = o.timeoutMs ?? DEFAULT_TIMEOUT_MS;
  await using input = await nameless(json);
  o.signal?.throwIfAborted(); // a listener is not told of an abort that was before it
  const [file = 'nft', ...args] = command;
  const result = await call(file, [...args, '-j', '-f', '-'], {
    input: input.handle.fd,
    timeoutMs,
    signal: o.signal,
  });
  o.signal?.throwIfAborted();
  if (result.timedOut) throw new TimeoutError('nft', timeoutMs);
  if (result.exitCode !== 0) throw readFailure(result);
  return result.stdout;
}

/**
 * Starts an nft that takes commands, a line each, until its input ends: what the kernel ties to a process lives as long.
 * @param command how to call nft
 */
export function startNft(command: readonly string[]): ChildProcess {
  const [file = 'nft', ...args] = command;
  return spawn(file, [...args, '-i'], {
    stdio: ['pipe', 'ignore', 'pipe'],
    env: { ...process.env, LC_ALL: 'C', HOME: '/nonexistent' }, // where it would write a history
  });
}

interface Ended {
  readonly code?: string | undefined;
  readonly exitCode: number | undefined;
  readonly stdout: string;
  readonly stderr: string;
  readonly shortMessage?: string | undefined;
  readonly timedOut: boolean;
}

/**
 * Node's own `spawn`: execa takes 1.5 ms more, a fifth of what a transaction takes. Killed where it is late: the kernel
 * does all of a transaction or nothing.
 */
function call(
  file: string,
  args: readonly string[],
  o: { input: number; timeoutMs: number; signal: AbortSignal | undefined },
): Promise<Ended> {
  return new Promise((resolve) => {
    const env = { ...process.env, LC_ALL: 'C' };
    const child = spawn(file, args, { stdio: [o.input, 'pipe', 'pipe'], env });
    const kill = () => void child.kill('SIGKILL');
    let timedOut = false;
    const timer = setTimeout(() => {
      timedOut = true;
      kill();
    }, o.timeoutMs);
    o.signal?.addEventListener('abort', kill, { once: true });
    let bytes = 0;
    const collect = (stream: Readable | null): Buffer[] => {
      const chunks: Buffer[] = [];
      stream?.on('data', (chunk: Buffer) => {
        bytes += chunk.length;
        if (bytes > MAX_OUTPUT_BYTES) kill();
        else chunks.push(chunk);
      });
      return chunks;
    };
    const [stdout, stderr] = [collect(child.stdout), collect(child.stderr)];
    const end = (exitCode: number | undefined, error?: NodeJS.ErrnoException) => {
      clearTimeout(timer);
      o.signal?.removeEventListener('abort', kill);
      const tooMuch = bytes > MAX_OUTPUT_BYTES ? `more than ${MAX_OUTPUT_BYTES} bytes` : undefined;
      const [out, err] = [stdout, stderr].map((chunks) => Buffer.concat(chunks).toString());
      const what = { code: error?.code, shortMessage: error?.message ?? tooMuch };
      resolve({ ...what, exitCode, stdout: out ?? '', stderr: err ?? '', timedOut });
    };
    child.once('error', (error) => {
      if (child.pid === undefined) end(undefined, error); // it could not be started
    });
    child.once('close', (exitCode) => end(exitCode ?? undefined));
  });
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
