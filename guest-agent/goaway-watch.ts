/** Notices when HTTP/2 gave up on its peer. */

/** `PRI * HTTP/2.0 … SM …` (RFC 9113, 3.4): what a client sends first. */
export const PREFACE_BYTES = 24;
/** RFC 9113, 7. */
export const NO_ERROR = 0;
const FRAME_HEAD_BYTES = 9;
const GOAWAY = 7;
/** Last stream's id, error code. */
const GOAWAY_BYTES = 8;

/**
 * Reads what our own end sends, for a GOAWAY. That is how nghttp2 gives up on a peer that breaks the
 * protocol, and then it reads nothing any more; but Node neither tells nor closes the session: a host's
 * calls would wait for their deadlines, and an agent for ever, even after the host is gone.
 */
export class GoawayWatch {
  readonly #onGoaway: (code: number) => void;
  readonly #bytes = Buffer.alloc(FRAME_HEAD_BYTES + GOAWAY_BYTES);
  #fill = 0;
  #skip: number;

  /**
   * @param prefaceBytes what comes before the first frame
   * @param onGoaway told of its error code
   */
  constructor(prefaceBytes: number, onGoaway: (code: number) => void) {
    this.#skip = prefaceBytes;
    this.#onGoaway = onGoaway;
  }

  /** Takes what is sent, all of it and in its order. */
  push(chunk: Buffer): void {
    let at = 0;
    while (at < chunk.length) {
      if (this.#skip > 0) {
        const skipped = Math.min(this.#skip, chunk.length - at);
        this.#skip -= skipped;
        at += skipped;
        continue;
      }
      const isGoaway = this.#fill >= FRAME_HEAD_BYTES && this.#bytes[3] === GOAWAY;
      const wanted = FRAME_HEAD_BYTES + (isGoaway ? GOAWAY_BYTES : 0);
      const end = Math.min(chunk.length, at + wanted - this.#fill);
      chunk.copy(this.#bytes, this.#fill, at, end);
      this.#fill += end - at;
      at = end;
      if (this.#fill === wanted) this.#read(isGoaway);
    }
  }

  #read(isGoaway: boolean): void {
    const length = this.#bytes.readUIntBE(0, 3);
    if (isGoaway) {
      this.#onGoaway(this.#bytes.readUInt32BE(FRAME_HEAD_BYTES + 4));
      this.#skip = length - GOAWAY_BYTES;
    } else if (this.#bytes[3] === GOAWAY) {
      return; // its code comes next
    } else {
      this.#skip = length;
    }
    this.#fill = 0;
  }
}
