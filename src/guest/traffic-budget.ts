/**
 * How much a guest may send that nobody asked for.
 *
 * HTTP/2 lets a peer send frames without end that carry nothing: pings, settings, empty data, data of
 * streams that are closed. Each costs little, and none breaks a rule, but a guest that floods with
 * them keeps the host's event loop busy, on which other VMs wait too. So a guest earns what it may
 * send by what it was asked for, and the session ends when it overdraws.
 */
import { HOST_WINDOW_BYTES, STREAM_WINDOW_BYTES } from '../../guest-agent/protocol.ts';

/** Settings, window updates and the like at the start. */
const INITIAL_BYTES = 1024 * 1024;
/** Most credit that can be put aside: all that may wait in unread streams at once, and some. */
const MAX_BYTES = HOST_WINDOW_BYTES + 16 * INITIAL_BYTES;
/** Wire bytes for one byte of payload: ten, where each comes in a frame of its own. */
const PER_PAYLOAD_BYTE = 16;
/** Headers of a reply, and the answer to a ping. */
const REPLY_BYTES = 4096;
const PING_BYTES = 64;

/** Counts what a guest may still send. */
export class TrafficBudget {
  readonly #onOverdrawn: () => void;
  #left = INITIAL_BYTES;

  /** @param onOverdrawn called with every chunk that is too much */
  constructor(onOverdrawn: () => void) {
    this.#onOverdrawn = onOverdrawn;
  }

  /** Bytes came from the channel. */
  received(bytes: number): void {
    this.#left -= bytes;
    if (this.#left < 0) this.#onOverdrawn();
  }

  /** A stream was opened: its reply, and what may be under way when it is closed, unread. */
  opened(): void {
    this.#earn(REPLY_BYTES + STREAM_WINDOW_BYTES);
  }

  /** A ping was sent. */
  pinged(): void {
    this.#earn(PING_BYTES);
  }

  /** Bytes of a body were sent, for which the guest gives room again. */
  sent(bytes: number): void {
    this.#earn(bytes);
  }

  /** Bytes of a reply arrived where they were waited for. */
  delivered(bytes: number): void {
    this.#earn(bytes * PER_PAYLOAD_BYTE);
  }

  #earn(bytes: number): void {
    this.#left = Math.min(MAX_BYTES, this.#left + bytes);
  }
}
