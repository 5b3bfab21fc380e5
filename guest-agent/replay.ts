/** The end of an exec's output, kept so that a host can attach later and see what it missed. */

/** A piece of output. */
export interface OutputPiece {
  readonly type: 2 | 3;
  readonly data: Buffer;
}

/** Chunks shorter than this are copied together: a program that writes byte by byte must not cost an object a byte. */
const SMALL_CHUNK_BYTES = 4096;
/** What a segment costs besides its bytes, roughly; counted, so that memory is bounded and not only bytes. */
const SEGMENT_OVERHEAD_BYTES = 256;

interface Segment {
  type: 2 | 3;
  buffer: Buffer;
  start: number;
  end: number;
  /** Whether `buffer` is ours to append to. */
  owned: boolean;
}

/** A bounded, ordered record of stdout and stderr; the oldest bytes go first. */
export class ReplayBuffer {
  readonly #limit: number;
  #segments: Segment[] = [];
  #size = 0;
  #droppedBytes = 0;

  /** @param limit memory it may take, bytes */
  constructor(limit: number) {
    this.#limit = limit;
  }

  /** Memory it takes, bytes, overhead included. */
  get size(): number {
    return this.#size;
  }

  /** Output bytes that are no longer in it. */
  get droppedBytes(): number {
    return this.#droppedBytes;
  }

  /** Appends; `data` may be kept by reference and must not be changed afterwards. */
  push(type: 2 | 3, data: Buffer): void {
    if (data.length === 0) return;
    if (data.length >= SMALL_CHUNK_BYTES) {
      this.#add({ type, buffer: data, start: 0, end: data.length, owned: false });
    } else {
      this.#append(type, data);
    }
    this.trim(this.#limit);
  }

  /** Drops the oldest output until no more than `limit` bytes are taken. */
  trim(limit: number): void {
    let gone = 0;
    while (this.#size > limit) {
      const first = this.#segments[gone];
      if (!first) break;
      gone += 1;
      this.#size -= cost(first);
      this.#droppedBytes += first.end - first.start;
    }
    if (gone > 0) this.#segments.splice(0, gone);
  }

  /** What is kept, oldest first. */
  *pieces(): Generator<OutputPiece> {
    for (const { type, buffer, start, end } of this.#segments) {
      yield { type, data: buffer.subarray(start, end) };
    }
  }

  #append(type: 2 | 3, data: Buffer): void {
    let last = this.#segments.at(-1);
    const fits = last?.owned && last.type === type && last.end + data.length <= last.buffer.length;
    if (!last || !fits) {
      last = {
        type,
        buffer: Buffer.allocUnsafeSlow(SMALL_CHUNK_BYTES),
        start: 0,
        end: 0,
        owned: true,
      };
      this.#add(last);
    }
    data.copy(last.buffer, last.end);
    last.end += data.length;
  }

  #add(segment: Segment): void {
    this.#segments.push(segment);
    this.#size += cost(segment);
  }
}

function cost(segment: Segment): number {
  return segment.buffer.length + SEGMENT_OVERHEAD_BYTES;
}
