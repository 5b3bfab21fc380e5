import { QmpProtocolError } from '../src/errors.ts';
import { MAX_LINE_BYTES } from './limits.ts';

const LF = 0x0a;
const CR = 0x0d;

/**
 * Cuts a byte stream into lines. Chunks are joined as bytes and decoded line by line, so that a
 * character split over two chunks comes out whole; a line feed never occurs inside a UTF-8
 * sequence.
 */
export class LineFramer {
  readonly #maxLineBytes: number;
  readonly #decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
  /** The pieces of the line under way, none of which has a line feed. */
  #parts: Buffer[] = [];
  #partBytes = 0;

  constructor(maxLineBytes: number = MAX_LINE_BYTES) {
    this.#maxLineBytes = maxLineBytes;
  }

  /** Whether the stream stands in the middle of a line. */
  get midLine(): boolean {
    return this.#partBytes > 0;
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
    for (;;) {
      const end = chunk.indexOf(LF, from);
      const piece = chunk.subarray(from, end === -1 ? undefined : end);
      this.#append(piece);
      if (end === -1) return;
      from = end + 1;
      const line = this.#takeLine();
      if (line !== '') yield line;
    }
  }

  #append(piece: Buffer): void {
    if (this.#partBytes + piece.length > this.#maxLineBytes) {
      throw new QmpProtocolError(`QMP line longer than ${this.#maxLineBytes} bytes`, {
        hint: 'Raise maxLineBytes if QEMU has reason to send this much; else treat this VM as broken and kill it.',
      });
    }
    if (piece.length === 0) return;
    this.#parts.push(piece);
    this.#partBytes += piece.length;
  }

  #takeLine(): string {
    const [only] = this.#parts;
    let bytes = this.#parts.length === 1 && only !== undefined ? only : Buffer.concat(this.#parts);
    this.#parts = [];
    this.#partBytes = 0;
    if (bytes.at(-1) === CR) bytes = bytes.subarray(0, -1);
    try {
      return this.#decoder.decode(bytes);
    } catch (cause) {
      throw new QmpProtocolError('QMP line is not valid UTF-8', {
        cause,
        hint: 'Check that the socket is a QMP monitor of QEMU (-qmp or -mon mode=control).',
      });
    }
  }
}
