/**
 * What both ends say before HTTP/2 starts.
 *
 * ```
 * host:  QMPAGENT <protocol> <nonce>\n                    again and again until answered
 * guest: QMPAGENT <protocol> <nonce> <agentVersion>\n     once for each nonce
 * host:  PRI * HTTP/2.0 …                                 from here on, RFC 9113
 * ```
 *
 * A virtio-serial port is a wire, not a connection: bytes of a session that ended (or that stood in a
 * snapshot) may still be in it, in both directions. The nonce says which answer belongs to which
 * question; the host drops everything before it, the guest everything that is not a preamble.
 */
import { PROTOCOL_VERSION } from './protocol.ts';

const MAGIC = 'QMPAGENT';
/** First bytes of HTTP/2's client preface (RFC 9113, 3.4). */
export const HTTP2_PREFACE = 'PRI * HTTP/2.0';
/**
 * Breaks an HTTP/2 session that the other end still believes in: longer than the longest frame
 * (16 KiB), in whose midst it may stand, and no frame's head. Skipped where no session is.
 */
export const WIRE_BREAK = Buffer.from(`${' '.repeat(20 * 1024)}\n`);
/** Of the last bytes on a wire, as many as tell a {@link WIRE_BREAK} from output. */
export const BREAK_TAIL_BYTES = 64;
/** Longest preamble line, newline excluded. */
export const PREAMBLE_LINE_BYTES = 128;
const NONCE = /^[0-9a-f]{16,64}$/;
const VERSION_TEXT = /^[\x21-\x7e]{1,32}$/;
const NEWLINE = 0x0a;

/** The host's line. */
export function hostPreamble(nonce: string): string {
  return `${MAGIC} ${PROTOCOL_VERSION} ${nonce}\n`;
}

/** The guest's answer. */
export function guestPreamble(nonce: string, agentVersion: string): string {
  return `${MAGIC} ${PROTOCOL_VERSION} ${nonce} ${agentVersion}\n`;
}

/** Whether the last {@link BREAK_TAIL_BYTES} of a wire are those of a break. */
export function isWireBreak(tail: Buffer): boolean {
  return tail.length >= BREAK_TAIL_BYTES && /^ +\n?$/.test(tail.toString('latin1'));
}

/** What the guest saw. */
export type GuestPreambleEvent = { kind: 'hello'; nonce: string } | { kind: 'http2'; rest: Buffer };

/**
 * The guest's reader: feeds on chunks, yields hellos, and stops at HTTP/2's preface. Anything else is
 * skipped; at most one line is kept.
 */
export class GuestPreambleReader {
  readonly #lines = new LineScanner();
  #lastNonce: string | undefined;

  /** Takes what came; the events are in order, `http2` is always the last. */
  push(chunk: Buffer): GuestPreambleEvent[] {
    const found: GuestPreambleEvent[] = [];
    this.#lines.push(chunk, (line, restAt) => {
      // The preface's own first line ends in \r\n; the session must get it whole.
      if (this.#lastNonce !== undefined && line === `${HTTP2_PREFACE}\r`) {
        const rest = Buffer.concat([Buffer.from(`${line}\n`), chunk.subarray(restAt)]);
        found.push({ kind: 'http2', rest });
        return false;
      }
      const [magic, , nonce, more] = line.split(' ');
      const hello =
        magic === MAGIC && nonce !== undefined && NONCE.test(nonce) && more === undefined;
      if (hello && nonce !== this.#lastNonce) {
        this.#lastNonce = nonce;
        found.push({ kind: 'hello', nonce });
      }
      return true;
    });
    return found;
  }
}

/** What the host saw: the guest's versions, and the bytes after its line. */
export interface GuestHello {
  readonly protocol: number;
  readonly agentVersion: string;
  readonly rest: Buffer;
}

/** The host's reader: drops everything that is not the answer to this nonce. */
export class HostPreambleReader {
  readonly #nonce: string;
  readonly #lines = new LineScanner();
  /** Bytes dropped or read so far; the caller bounds it. */
  bytes = 0;

  constructor(nonce: string) {
    this.#nonce = nonce;
  }

  /** The answer, once it is whole. */
  push(chunk: Buffer): GuestHello | undefined {
    this.bytes += chunk.length;
    let hello: GuestHello | undefined;
    this.#lines.push(chunk, (line, restAt) => {
      // Stale bytes without a newline may stand before the answer on its line.
      const start = line.lastIndexOf(`${MAGIC} `);
      if (start < 0) return true;
      const [, protocol, nonce, version, more] = line.slice(start).split(' ');
      if (nonce !== this.#nonce || protocol === undefined || !/^\d{1,6}$/.test(protocol))
        return true;
      if (version === undefined || !VERSION_TEXT.test(version) || more !== undefined) return true;
      hello = { protocol: Number(protocol), agentVersion: version, rest: chunk.subarray(restAt) };
      return false;
    });
    return hello;
  }
}

/** Cuts a stream into lines and keeps no more than the end of the current one. */
class LineScanner {
  #tail: Buffer = Buffer.alloc(0);

  /** Calls `onLine` with each line and the offset behind it in `chunk`, until that returns false. */
  push(chunk: Buffer, onLine: (line: string, restAt: number) => boolean): void {
    let at = 0;
    for (;;) {
      const end = chunk.indexOf(NEWLINE, at);
      const piece = chunk.subarray(at, end < 0 ? chunk.length : end);
      // The end of an overlong line is what counts: an answer may follow garbage without a newline.
      this.#tail = lastBytes(this.#tail, piece, PREAMBLE_LINE_BYTES);
      if (end < 0) return;
      const line = this.#tail.toString('latin1');
      this.#tail = Buffer.alloc(0);
      at = end + 1;
      if (!onLine(line, at)) return;
    }
  }
}

/** The end of what came: a copy, as a part of the piece would keep all of it. */
export function lastBytes(tail: Buffer, piece: Buffer, count: number): Buffer {
  if (piece.length >= count) return Buffer.from(piece.subarray(-count));
  if (tail.length + piece.length === 0) return tail;
  return Buffer.concat([tail, piece]).subarray(-count);
}
