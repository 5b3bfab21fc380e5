/** A part of a file on the host, or all of it. */
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { importError } from './import-error.ts';

/** Bytes `start` to `start + sizeBytes` of a file. */
export interface FileRange {
  readonly path: string;
  readonly start: number;
  readonly sizeBytes: number;
}

const CHUNK_BYTES = 1024 * 1024;

/** The bytes of a range, until `signal` aborts. */
export async function* readRange(range: FileRange, signal?: AbortSignal): AsyncGenerator<Buffer> {
  if (range.sizeBytes === 0) return;
  const end = range.start + range.sizeBytes - 1;
  const stream = createReadStream(range.path, {
    start: range.start,
    end,
    highWaterMark: CHUNK_BYTES,
  });
  try {
    for await (const chunk of stream) {
      signal?.throwIfAborted();
      yield chunk as Buffer;
    }
  } catch (error) {
    signal?.throwIfAborted();
    const why = (error as Error).message;
    throw importError(`cannot read ${range.path}: ${why}`, 'See that you may read it.', error);
  }
}

/**
 * The whole range in memory.
 * @throws ImageError it is longer than `maxBytes`
 */
export async function readWhole(
  range: FileRange,
  label: string,
  maxBytes: number,
): Promise<Buffer> {
  if (range.sizeBytes > maxBytes) {
    throw importError(
      `${label} has ${range.sizeBytes} bytes; at most ${maxBytes} are read`,
      'Give an archive as docker save or skopeo write it.',
    );
  }
  const parts: Buffer[] = [];
  for await (const part of readRange(range)) parts.push(part);
  return Buffer.concat(parts);
}

/** SHA-256 of a range, hex. */
export async function sha256OfRange(range: FileRange, signal?: AbortSignal): Promise<string> {
  const hash = createHash('sha256');
  for await (const part of readRange(range, signal)) hash.update(part);
  return hash.digest('hex');
}
