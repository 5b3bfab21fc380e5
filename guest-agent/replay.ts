/** The end of an exec's output, kept so that a host can attach later and see what it missed. */

/** A piece of output. */
export interface OutputPiece {
  readonly type: 2 | 3;
  readonly data: Buffer;
}

/** Chunks shorter than this are copied together: a program that writes byte by byte must not cost an object a byte. */
const SMALL_CHUNK_BYTES = 4096;
/** What a segment costs besides its bytes, roughly; counted, so that memory is bounded and not only bytes. */
export const SEGMENT_OVERHEAD_BYTES = 256;

interface Segment {
  readonly type: 2 | 3;
  buffer: Buffer;
  end: number;
  /** Whether `buffer` is ours to append to. */
  owned: boolean;
}

/** A bounded, ordered record of stdout and stderr; the oldest bytes go first. */
export class ReplayBuffer {
  readonly #limit: number;
  readonly #onSize: (change: number) => void;
  #segments: Segment[] = [];
  #size = 0;
  #droppedBytes = 0;

  /**
   * @param limit memory it may take, bytes
   * @param onSize told of every change of {@link size}
   */
  constructor(limit: number, onSize: (change: number) => void = () => undefined) {
    this.#limit = limit;
    this.#onSize = onSize;
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
    const before = this.#size;
    if (data.length >= SMALL_CHUNK_BYTES) {
      this.#add({ type, buffer: data, end: data.length, owned: false });
    } else {
      this.#append(type, data);
    }
    this.#drop(this.#limit);
    this.#onSize(this.#size - before);
  }

  /** Drops the oldest output until no more than `limit` bytes are taken. */
  trim(limit: number): void {
    const before = this.#size;
    this.#drop(limit);
    this.#onSize(this.#size - before);
  }

  /** What is kept, oldest first. */
  *pieces(): Generator<OutputPiece> {
    for (const { type, buffer, end } of this.#segments) {
      yield { type, data: buffer.subarray(0, end) };
    }
  }

  #drop(limit: number): void {
    let gone = 0;
    while (this.#size > limit) {
      const first = this.#segments[gone];
      if (!first) break;
      gone += 1;
      this.#size -= cost(first);
      this.#droppedBytes += first.end;
      // The newest is cut, not dropped, however small the limit: its end is what people look for.
      const room = limit - SEGMENT_OVERHEAD_BYTES;
      if (gone === this.#segments.length && room > 0) {
        const kept = exactCopy(first.buffer.subarray(Math.max(0, first.end - room), first.end));
        this.#droppedBytes -= kept.length;
        this.#segments = [];
        this.#add({ type: first.type, buffer: kept, end: kept.length, owned: false });
        return;
      }
    }
    if (gone > 0) this.#segments.splice(0, gone);
  }

  #append(type: 2 | 3, data: Buffer): void {
    let last = this.#segments.at(-1);
    if (last?.owned !== true || last.type !== type || last.end + data.length > last.buffer.length) {
      if (last?.owned) this.#close(last);
      last = { type, buffer: Buffer.allocUnsafeSlow(SMALL_CHUNK_BYTES), end: 0, owned: true };
      this.#add(last);
    }
    data.copy(last.buffer, last.end);
    last.end += data.length;
  }

  /** Gives back the unused end: output that changes between stdout and stderr leaves many. */
  #close(segment: Segment): void {
    this.#size -= segment.buffer.length - segment.end;
    segment.buffer = exactCopy(segment.buffer.subarray(0, segment.end));
    segment.owned = false;
  }

  #add(segment: Segment): void {
    this.#segments.push(segment);
    this.#size += cost(segment);
  }
}

function cost(segment: Segment): number {
  return segment.buffer.length + SEGMENT_OVERHEAD_BYTES;
}

/** A copy that holds no larger piece of memory alive. */
function exactCopy(data: Buffer): Buffer {
  const copy = Buffer.allocUnsafeSlow(data.length);
  data.copy(copy);
  return copy;
}
