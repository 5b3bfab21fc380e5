import { describe, expect, it } from 'vitest';
import { ReplayBuffer, SEGMENT_OVERHEAD_BYTES } from '../../../guest-agent/replay.ts';
import { randomBuffer, seeded, whole } from './random.ts';

/** `1:…` for stdout, `2:…` for stderr, in order. */
function contents(replay: ReplayBuffer): string {
  return [...replay.pieces()].map(({ type, data }) => `${type - 1}:${data.toString()}`).join(' ');
}

function keptBytes(replay: ReplayBuffer): number {
  return [...replay.pieces()].reduce((sum, { data }) => sum + data.length, 0);
}

describe('ReplayBuffer', () => {
  it('keeps both streams in the order in which they came', () => {
    const replay = new ReplayBuffer(100_000);
    for (const [type, text] of [
      [2, 'a'],
      [2, 'b'],
      [3, 'oops'],
      [2, 'c'],
    ] as const) {
      replay.push(type, Buffer.from(text));
    }
    expect(contents(replay)).toBe('1:ab 2:oops 1:c');
    expect(replay.droppedBytes).toBe(0);
  });

  it.each([1, 2, 3, 4])('keeps the end within its limit (seed %d)', (seed) => {
    const random = seeded(seed);
    const limit = 20_000 + whole(random, 100_000);
    let told = 0;
    const replay = new ReplayBuffer(limit, (change) => (told += change));
    const all: Buffer[] = [];
    for (let i = 0; i < 300; i += 1) {
      const size = random() < 0.7 ? 1 + whole(random, 200) : 1 + whole(random, 9000);
      const data = randomBuffer(random, size);
      all.push(data);
      replay.push(random() < 0.5 ? 2 : 3, data);
      expect(replay.size).toBeLessThanOrEqual(limit);
      expect(told).toBe(replay.size);
    }
    const whole_ = Buffer.concat(all);
    const kept = Buffer.concat([...replay.pieces()].map(({ data }) => data));
    expect(replay.droppedBytes + kept.length).toBe(whole_.length);
    expect(kept.equals(whole_.subarray(-kept.length))).toBe(true);
    expect(kept.length).toBeGreaterThan(0);
  });

  it('cuts a chunk that is larger than the limit', () => {
    const limit = SEGMENT_OVERHEAD_BYTES + 10;
    const replay = new ReplayBuffer(limit);
    replay.push(2, Buffer.from(`${'x'.repeat(50_000)}0123456789`));
    expect(contents(replay)).toBe('1:0123456789');
    expect(replay.droppedBytes).toBe(50_000);
  });

  it('keeps nothing where nothing is to be kept', () => {
    const replay = new ReplayBuffer(0);
    replay.push(2, Buffer.from('gone'));
    replay.push(3, Buffer.alloc(100_000));
    expect(contents(replay)).toBe('');
    expect(replay).toMatchObject({ size: 0, droppedBytes: 100_004 });
  });

  it('counts what it takes, not only what it holds', () => {
    const replay = new ReplayBuffer(1_000_000);
    // Each byte of the other stream: the worst that a program can do.
    for (let i = 0; i < 10_000; i += 1) replay.push(i % 2 === 0 ? 2 : 3, Buffer.from('x'));
    expect(keptBytes(replay)).toBeLessThan(4000);
    expect(replay.size).toBeLessThanOrEqual(1_000_000);
    expect(replay.droppedBytes).toBe(10_000 - keptBytes(replay));
  });

  it('gives up what it holds when it is told to', () => {
    const replay = new ReplayBuffer(1_000_000);
    replay.push(2, Buffer.alloc(50_000, 'a'));
    replay.push(2, Buffer.alloc(50_000, 'b'));
    replay.trim(60_000);
    expect(keptBytes(replay)).toBe(50_000);
    replay.trim(0);
    expect(replay).toMatchObject({ size: 0, droppedBytes: 100_000 });
  });

  it('does not change what it has already given out', () => {
    const replay = new ReplayBuffer(1_000_000);
    replay.push(2, Buffer.from('first'));
    const [piece] = [...replay.pieces()];
    replay.push(2, Buffer.from('second'));
    expect(piece!.data.toString()).toBe('first');
  });
});
