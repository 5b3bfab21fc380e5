const FIRST_BYTES = 256;

/**
 * Bytes that come in pieces, gathered in one piece of memory. To keep the pieces themselves would keep
 * alive what they are cut from: a peer that sends single bytes could make each cost 64 KiB.
 */
export class ByteCollector {
  #buffer = Buffer.allocUnsafeSlow(FIRST_BYTES);
  #length = 0;

  /** Bytes gathered so far. */
  get length(): number {
    return this.#length;
  }

  /** Appends a copy. */
  push(piece: Uint8Array): void {
    const length = this.#length + piece.length;
    if (length > this.#buffer.length) {
      const larger = Buffer.allocUnsafeSlow(Math.max(length, 2 * this.#buffer.length));
      this.#buffer.copy(larger, 0, 0, this.#length);
      this.#buffer = larger;
    }
    this.#buffer.set(piece, this.#length);
    this.#length = length;
  }

  /** All of them. Valid until the next {@link push}. */
  bytes(): Buffer {
    return this.#buffer.subarray(0, this.#length);
  }
}
