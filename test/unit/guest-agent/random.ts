/** Random input that is the same in every run: a failure can be looked at again. */

/** mulberry32: numbers from 0 to 1. */
export function seeded(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** A whole number from 0 to `below` − 1. */
export function whole(random: () => number, below: number): number {
  return Math.floor(random() * below);
}

export function randomBuffer(random: () => number, length: number): Buffer {
  return Buffer.from(Array.from({ length }, () => whole(random, 256)));
}

/** Cuts at random into pieces of 1 to `maxBytes`. */
export function cut(random: () => number, bytes: Buffer, maxBytes: number): Buffer[] {
  const pieces: Buffer[] = [];
  for (let at = 0; at < bytes.length;) {
    const end = at + 1 + whole(random, maxBytes);
    pieces.push(bytes.subarray(at, end));
    at = end;
  }
  return pieces;
}
