/** Finds out how a stream is compressed, and undoes it. */
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { createGunzip } from 'node:zlib';
import { execa } from 'execa';
import { BUILD_PATH, requireTools } from '../../../firmware/build-process.ts';
import { feedProgram } from '../../../firmware/feed-program.ts';
import { importError, MAKE_ANEW } from './import-error.ts';

/** How a file is compressed. */
export type Compression = 'none' | 'gzip' | 'xz' | 'zstd' | 'bzip2';

/** First bytes of each format (RFC 1952, xz-file-format 1.2, RFC 8878, bzip2(1)). */
const MAGIC: readonly (readonly [Compression, readonly number[]])[] = [
  ['gzip', [0x1f, 0x8b]],
  ['xz', [0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00]],
  ['zstd', [0x28, 0xb5, 0x2f, 0xfd]],
  ['bzip2', [0x42, 0x5a, 0x68]],
];
const CHUNK_BYTES = 256 * 1024;
/** Kept of what a program complains about. */
const MAX_STDERR_BYTES = 4096;

/** The compression that a file's first bytes tell of. */
export function compressionOf(head: Buffer): Compression {
  const found = MAGIC.find(([, magic]) => magic.every((byte, index) => head[index] === byte));
  return found?.[0] ?? 'none';
}

/**
 * The uncompressed contents of a stream.
 * @param label names it in errors
 * @throws ImageError it is damaged
 * @throws HostError the program for its format is not installed
 */
export async function* decompressed(
  source: AsyncIterable<Buffer>,
  label: string,
): AsyncGenerator<Buffer> {
  const iterator = source[Symbol.asyncIterator]();
  try {
    const first = await iterator.next();
    if (first.done === true) return;
    const kind = compressionOf(first.value);
    const whole = rejoined(first.value, iterator);
    if (kind === 'none') yield* whole;
    else if (kind === 'gzip') yield* gunzipped(whole, label);
    else yield* throughProgram(kind, whole, label);
  } finally {
    await iterator.return?.();
  }
}

async function* rejoined(
  first: Buffer,
  rest: AsyncIterator<Buffer>,
): AsyncGenerator<Buffer, void, void> {
  yield first;
  for (let next = await rest.next(); next.done !== true; next = await rest.next()) yield next.value;
}

async function* gunzipped(source: AsyncIterable<Buffer>, label: string): AsyncGenerator<Buffer> {
  const gunzip = createGunzip({ chunkSize: CHUNK_BYTES });
  const feeding = pipeline(Readable.from(source), gunzip).catch((error: unknown) => error);
  try {
    for await (const chunk of gunzip) yield chunk as Buffer;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code?.startsWith('Z_') !== true) throw error;
    throw importError(`${label}: broken gzip: ${(error as Error).message}`, MAKE_ANEW, error);
  } finally {
    gunzip.destroy();
    await feeding;
  }
}

async function* throughProgram(
  program: 'xz' | 'zstd' | 'bzip2',
  source: AsyncIterable<Buffer>,
  label: string,
): AsyncGenerator<Buffer> {
  await requireTools([program]);
  const child = execa(program, ['-d', '-c'], {
    env: { PATH: BUILD_PATH, LC_ALL: 'C.UTF-8' },
    extendEnv: false,
    stdin: 'pipe',
    buffer: { stdout: false, stderr: true },
    maxBuffer: { stderr: MAX_STDERR_BYTES },
    encoding: 'buffer',
    reject: false,
  });
  const feeding = feedProgram(source, child.stdin);
  feeding.catch(() => child.kill('SIGKILL'));
  try {
    for await (const chunk of child.stdout) yield chunk as Buffer;
    const { exitCode, stderr } = await child;
    await feeding;
    if (exitCode !== 0) {
      const why = Buffer.from(stderr).toString().trim();
      throw importError(`${label}: broken ${program}: ${why}`, MAKE_ANEW);
    }
  } finally {
    child.kill('SIGKILL');
    await child;
    await feeding.catch(() => undefined);
  }
}
