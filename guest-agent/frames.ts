/**
 * Frames in which an exec's output travels: type u8, payload length u32 big endian, payload.
 * Output is passed on as it comes, so a reader never holds more than what one chunk brought.
 */
import { ByteCollector } from './byte-collector.ts';
import { LIMITS } from './protocol.ts';

/** Frame types. */
export const FRAME = {
  /** JSON {@link StartedFrame}; always the first. */
  started: 1,
  stdout: 2,
  stderr: 3,
  /** u64: output bytes that were dropped at this place. */
  truncated: 4,
  /** JSON `ExecExit`; always the last. */
  exit: 5,
  /** JSON `{code, message}`: the exec could not be started. The only frame then. */
  error: 6,
} as const;

/** First frame of an exec's output. */
export interface StartedFrame {
  id: string;
  pid: number;
}

/** Bytes of a frame's head. */
export const FRAME_HEAD_BYTES = 5;

/** A frame's head. */
export function frameHead(type: number, length: number): Buffer {
  const head = Buffer.allocUnsafe(FRAME_HEAD_BYTES);
  head[0] = type;
  head.writeUInt32BE(length, 1);
  return head;
}

/** A whole frame with a JSON payload. */
export function jsonFrame(type: number, value: unknown): Buffer {
  const text = JSON.stringify(value);
  const length = Buffer.byteLength(text);
  const frame = Buffer.allocUnsafe(FRAME_HEAD_BYTES + length);
  frame[0] = type;
  frame.writeUInt32BE(length, 1);
  frame.write(text, FRAME_HEAD_BYTES);
  return frame;
}

/** A whole `truncated` frame. */
export function truncatedFrame(bytes: number): Buffer {
  const frame = Buffer.concat([frameHead(FRAME.truncated, 8), Buffer.alloc(8)]);
  frame.writeBigUInt64BE(BigInt(bytes), FRAME_HEAD_BYTES);
  return frame;
}

/** The peer sent something that is not a frame, or more than a limit allows. */
export class FrameError extends Error {
  override readonly name = 'FrameError';
}

/** What a {@link FrameReader} calls. */
export interface FrameHandler {
  /**
   * A piece of stdout (2) or stderr (3): a part of the chunk that was pushed, not a copy. Empty for a
   * frame without payload, so that whoever counts them can.
   */
  output(type: typeof FRAME.stdout | typeof FRAME.stderr, data: Buffer): void;
  /** A whole frame of another type. */
  frame(type: number, payload: Buffer): void;
}

const EMPTY = Buffer.alloc(0);

/** Longest payload of a frame that is not output. */
const CONTROL_BYTES = 64 * 1024;

/** Cuts a byte stream into frames. */
export class FrameReader {
  readonly #handler: FrameHandler;
  readonly #head = Buffer.alloc(FRAME_HEAD_BYTES);
  #headFill = 0;
  #type = 0;
  #left = 0;
  /** Of a frame that is not output. */
  #payload: ByteCollector | undefined;

  constructor(handler: FrameHandler) {
    this.#handler = handler;
  }

  /** @throws FrameError on an unknown type or a length beyond the limits */
  push(chunk: Buffer): void {
    let at = 0;
    while (at < chunk.length) {
      if (this.#headFill < FRAME_HEAD_BYTES) {
        at = this.#readHead(chunk, at);
        continue;
      }
      const piece = chunk.subarray(at, at + this.#left);
      at += piece.length;
      this.#left -= piece.length;
      if (this.#payload) this.#payload.push(piece);
      else this.#handler.output(this.#type as 2 | 3, piece);
      this.#finishIfWhole();
    }
  }

  #readHead(chunk: Buffer, at: number): number {
    const end = Math.min(chunk.length, at + FRAME_HEAD_BYTES - this.#headFill);
    chunk.copy(this.#head, this.#headFill, at, end);
    this.#headFill += end - at;
    if (this.#headFill < FRAME_HEAD_BYTES) return end;
    this.#type = this.#head[0] ?? 0;
    this.#left = this.#head.readUInt32BE(1);
    const isOutput = this.#type === FRAME.stdout || this.#type === FRAME.stderr;
    if (this.#type < FRAME.started || this.#type > FRAME.error) {
      throw new FrameError(`unknown frame type ${this.#type}`);
    }
    const limit = isOutput ? LIMITS.frameBytes : CONTROL_BYTES;
    if (this.#left > limit) {
      throw new FrameError(`frame of type ${this.#type} has ${this.#left} bytes; at most ${limit}`);
    }
    this.#payload = isOutput ? undefined : new ByteCollector();
    if (isOutput && this.#left === 0) this.#handler.output(this.#type as 2 | 3, EMPTY);
    this.#finishIfWhole();
    return end;
  }

  #finishIfWhole(): void {
    if (this.#left > 0) return;
    const payload = this.#payload;
    this.#headFill = 0;
    this.#payload = undefined;
    if (payload) this.#handler.frame(this.#type, payload.bytes());
  }
}
