/** What a command printed, as far as it is kept. */
import { StringDecoder } from 'node:string_decoder';
import type { CommandEncoding, OutputListener, OutputOf } from './command-types.ts';

/** Default of `maxOutputBytes`. */
export const DEFAULT_MAX_OUTPUT_BYTES = 16 * 1024 * 1024;
/** A JavaScript string ends at some 512 MiB (V8's limit); so does what can be asked for. */
export const MAX_OUTPUT_BYTES = 512 * 1024 * 1024;

/** One stream of a command: hands pieces on as they come, and keeps the last bytes. */
export class OutputCollector<E extends CommandEncoding> {
  readonly #encoding: E;
  readonly #listener: OutputListener<E> | undefined;
  readonly #decoder = new StringDecoder('utf8');
  readonly #tail: Tail;
  #lostBytes = 0;

  constructor(o: { encoding: E; maxBytes: number; listener: OutputListener<E> | undefined }) {
    this.#encoding = o.encoding;
    this.#listener = o.listener;
    this.#tail = new Tail(o.maxBytes);
  }

  /** Whether something is missing. */
  get truncated(): boolean {
    return this.#missingBytes > 0;
  }

  /** What is kept; text begins with a line that says how much is not. */
  get value(): OutputOf<E> {
    const bytes = this.#tail.read();
    if (this.#encoding === 'buffer') return bytes as OutputOf<E>;
    if (!this.truncated) return bytes.toString('utf8') as OutputOf<E>;
    const start = characterStart(bytes);
    const mark = `[… ${this.#missingBytes + start} bytes truncated …]\n`;
    return `${mark}${bytes.toString('utf8', start)}` as OutputOf<E>;
  }

  /** Takes a piece; resolves when the listener is through with it. */
  async push(data: Buffer): Promise<void> {
    this.#tail.push(data);
    if (this.#listener === undefined) return;
    if (this.#encoding === 'buffer') {
      await this.#listener(data as OutputOf<E>);
      return;
    }
    // A character may be split between two pieces: its first half waits for the second.
    const text = this.#decoder.write(data);
    if (text !== '') await this.#listener(text as OutputOf<E>);
  }

  /** The guest did not keep this much. */
  lost(bytes: number): void {
    this.#lostBytes += bytes;
  }

  /** No more pieces: half a character at the end goes out as U+FFFD. */
  async end(): Promise<void> {
    const rest = this.#decoder.end();
    if (rest !== '') await this.#listener?.(rest as OutputOf<E>);
  }

  get #missingBytes(): number {
    return this.#lostBytes + this.#tail.droppedBytes;
  }
}

/** Where the first whole character starts in UTF-8 that was cut anywhere. */
function characterStart(bytes: Buffer): number {
  const MAX_CONTINUATION_BYTES = 3;
  let start = 0;
  while (start < MAX_CONTINUATION_BYTES && ((bytes[start] ?? 0) & 0xc0) === 0x80) start += 1;
  return start;
}

const BLOCK_BYTES = 64 * 1024;

/**
 * The last bytes of a stream, copied into blocks: pieces of one byte each, which a guest is free to
 * send, would otherwise take a hundred times their size.
 */
class Tail {
  readonly #maxBytes: number;
  readonly #blocks: Buffer[] = [];
  /** Bytes in use of the last block. */
  #filled = BLOCK_BYTES;
  #total = 0;

  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes;
  }

  get droppedBytes(): number {
    return Math.max(0, this.#total - this.#maxBytes);
  }

  push(data: Buffer): void {
    this.#total += data.length;
    let rest = data.subarray(Math.max(0, data.length - this.#maxBytes));
    while (rest.length > 0) {
      if (this.#filled === BLOCK_BYTES) {
        this.#blocks.push(Buffer.allocUnsafeSlow(BLOCK_BYTES));
        this.#filled = 0;
      }
      const copied = rest.copy(this.#blocks.at(-1) as Buffer, this.#filled);
      this.#filled += copied;
      rest = rest.subarray(copied);
    }
    while (this.#stored - BLOCK_BYTES >= this.#maxBytes && this.#blocks.length > 0)
      this.#blocks.shift();
  }

  read(): Buffer {
    const stored = Buffer.concat(this.#blocks, this.#stored);
    return stored.subarray(Math.max(0, stored.length - this.#maxBytes));
  }

  get #stored(): number {
    return this.#blocks.length * BLOCK_BYTES - (BLOCK_BYTES - this.#filled);
  }
}
