/** HTTP/2 by hand (RFC 9113), as far as it takes to break it. For the hostile agent only. */
import { PREFACE_BYTES } from '../../../../guest-agent/goaway-watch.ts';

export const TYPE = {
  data: 0,
  headers: 1,
  rstStream: 3,
  settings: 4,
  pushPromise: 5,
  ping: 6,
  goaway: 7,
  windowUpdate: 8,
  continuation: 9,
} as const;

export const FLAG = { endStream: 0x1, ack: 0x1, endHeaders: 0x4 } as const;

/** `:status: 200` from HPACK's static table (RFC 7541, appendix A), and `:status: 100` as a literal. */
export const STATUS_200 = Buffer.from([0x88]);
export const STATUS_100 = Buffer.from([0x08, 3, 0x31, 0x30, 0x30]);

const HEAD_BYTES = 9;

export function frame(
  type: number,
  flags: number,
  streamId: number,
  payload: Buffer = Buffer.alloc(0),
  claimedLength = payload.length,
): Buffer {
  const head = Buffer.alloc(HEAD_BYTES);
  head.writeUIntBE(claimedLength, 0, 3);
  head[3] = type;
  head[4] = flags;
  head.writeUInt32BE(streamId, 5);
  return Buffer.concat([head, payload]);
}

/** A 32-bit number, as WINDOW_UPDATE and RST_STREAM carry it. */
export function u32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
}

/** What a client sent. */
export interface ClientFrame {
  readonly type: number;
  readonly flags: number;
  readonly streamId: number;
  readonly payload: Buffer;
}

/** Cuts a client's bytes into frames; the preface is skipped. */
export class ClientReader {
  #bytes: Buffer = Buffer.alloc(0);
  #skip = PREFACE_BYTES;

  push(chunk: Buffer): ClientFrame[] {
    const frames: ClientFrame[] = [];
    this.#bytes = Buffer.concat([this.#bytes, chunk]);
    if (this.#bytes.length < this.#skip) return frames;
    this.#bytes = this.#bytes.subarray(this.#skip);
    this.#skip = 0;
    while (this.#bytes.length >= HEAD_BYTES) {
      const end = HEAD_BYTES + this.#bytes.readUIntBE(0, 3);
      if (this.#bytes.length < end) break;
      frames.push({
        type: this.#bytes[3]!,
        flags: this.#bytes[4]!,
        streamId: this.#bytes.readUInt32BE(5) & 0x7fffffff,
        payload: this.#bytes.subarray(HEAD_BYTES, end),
      });
      this.#bytes = this.#bytes.subarray(end);
    }
    return frames;
  }
}
