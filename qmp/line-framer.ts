import { QmpProtocolError } from '../src/errors.ts';
import { MAX_LINE_BYTES } from './limits.ts';

const LF = 0x0a;
const CR = 0x0d;
const FIRST_CAPACITY = 4096;

/**
 * Cuts a byte stream into lines. Chunks are joined as bytes and decoded line by line, so that a
 * character split over two chunks comes out whole; a line feed never occurs inside a UTF-8
 * sequence.
 */
export class LineFramer {
  readonly #maxLineBytes: number;
  readonly #decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
  /**
   * The line under way, as far as it is not in the chunk at hand. It doubles as it grows: chunks
   * kept one by one would cost a hundred times their size where they come byte by byte.
   */
  #pending: Buffer = Buffer.alloc(0);
  #pendingBytes = 0;

  constructor(maxLineBytes: number = MAX_LINE_BYTES) {
    this.#maxLineBytes = maxLineBytes;
  }

  /** Whether the stream stands in the middle of a line. */
  get midLine(): boolean {
    return this.#pendingBytes > 0;
  }

  /**
   * Takes the next bytes; gives the lines that they complete, without line ends and without
   * empty lines.
   *
   * @throws QmpProtocolError where a line is longer than the limit or is not UTF-8. The framer
   * must not be used afterwards.
   */
  *push(chunk: Buffer): Generator<string, void, void> {
    let from = 0;
    for (let end = chunk.indexOf(LF); end !== -1; end = chunk.indexOf(LF, from)) {
      const line = this.#complete(chunk.subarray(from, end));
      from = end + 1;
      if (line !== '') yield line;
    }
    this.#keep(chunk.subarray(from));
  }

  #complete(rest: Buffer): string {
    if (this.#pendingBytes === 0) {
      this.#check(rest.length);
      return this.#decode(rest);
    }
    this.#keep(rest);
    const bytes = this.#pending.subarray(0, this.#pendingBytes);
    this.#pending = Buffer.alloc(0);
    this.#pendingBytes = 0;
    return this.#decode(bytes);
  }

  #keep(piece: Buffer): void {
    const length = this.#pendingBytes + piece.length;
    this.#check(length);
    if (length > this.#pending.length) {
      const grown = Buffer.allocUnsafeSlow(
        Math.max(length, this.#pending.length * 2, FIRST_CAPACITY),
      );
      this.#pending.copy(grown, 0, 0, this.#pendingBytes);
      this.#pending = grown;
    }
    piece.copy(this.#pending, this.#pendingBytes);
    this.#pendingBytes = length;
  }

  #check(lineBytes: number): void {
    if (lineBytes <= this.#maxLineBytes) return;
    throw new QmpProtocolError(`QMP line longer than ${this.#maxLineBytes} bytes`, {
      hint: 'Raise maxLineBytes if QEMU has reason to send this much; else treat this VM as broken and kill it.',
    });
  }

  #decode(bytes: Buffer): string {
    try {
      return this.#decoder.decode(bytes.at(-1) === CR ? bytes.subarray(0, -1) : bytes);
    } catch (cause) {
      throw new QmpProtocolError('QMP line is not valid UTF-8', {
        cause,
        hint: 'Check that the socket is a QMP monitor of QEMU (-qmp or -mon mode=control).',
      });
    }
  }
}
