import { describe, expect, it } from 'vitest';
import {
  FRAME,
  FrameError,
  frameHead,
  FrameReader,
  jsonFrame,
  truncatedFrame,
} from '../../../guest-agent/frames.ts';
import { LIMITS } from '../../../guest-agent/protocol.ts';
import { cut, randomBuffer, seeded, whole } from './random.ts';

interface Seen {
  readonly type: number;
  readonly payload: Buffer;
}

/** A reader, and what it saw: adjacent pieces of one stream as one. */
function reader(): { read: FrameReader; seen: Seen[] } {
  const seen: Seen[] = [];
  const read = new FrameReader({
    output(type, data) {
      const last = seen.at(-1);
      if (last?.type === type) {
        seen[seen.length - 1] = { type, payload: Buffer.concat([last.payload, data]) };
      } else {
        seen.push({ type, payload: data });
      }
    },
    frame: (type, payload) => void seen.push({ type, payload: Buffer.from(payload) }),
  });
  return { read, seen };
}

function frameOf(type: number, payload: Buffer): Buffer {
  return Buffer.concat([frameHead(type, payload.length), payload]);
}

describe('FrameReader', () => {
  it.each([1, 2, 3, 4, 5])('reads what was written, however it is cut (seed %d)', (seed) => {
    const random = seeded(seed);
    const frames = [jsonFrame(FRAME.started, { id: 'x', pid: 1 })];
    const expected: Seen[] = [{ type: FRAME.started, payload: frames[0]!.subarray(5) }];
    for (let i = 0; i < 50; i += 1) {
      const type = i % 2 === 0 ? FRAME.stdout : FRAME.stderr;
      const payload = randomBuffer(random, 1 + whole(random, 300));
      frames.push(frameOf(type, payload));
      expected.push({ type, payload });
    }
    frames.push(truncatedFrame(2 ** 40), jsonFrame(FRAME.exit, { exitCode: 0 }));
    expected.push({ type: FRAME.truncated, payload: frames.at(-2)!.subarray(5) });
    expected.push({ type: FRAME.exit, payload: frames.at(-1)!.subarray(5) });
    const { read, seen } = reader();
    for (const piece of cut(random, Buffer.concat(frames), 1 + whole(random, 90))) read.push(piece);
    expect(seen).toEqual(expected);
  });

  it('passes output on as it comes, before its frame is whole', () => {
    const { read, seen } = reader();
    read.push(Buffer.concat([frameHead(FRAME.stdout, 100), Buffer.from('early')]));
    expect(seen).toEqual([{ type: FRAME.stdout, payload: Buffer.from('early') }]);
  });

  it('tells of empty output, so that it can be counted', () => {
    const { read, seen } = reader();
    read.push(Buffer.concat([frameHead(FRAME.stdout, 0), frameHead(FRAME.stderr, 0)]));
    expect(seen.map(({ type }) => type)).toEqual([FRAME.stdout, FRAME.stderr]);
  });

  it.each([0, 7, 99, 255])('refuses type %d', (type) => {
    const { read } = reader();
    expect(() => read.push(frameHead(type, 0))).toThrow(FrameError);
  });

  it.each([
    [FRAME.stdout, LIMITS.frameBytes],
    [FRAME.stderr, LIMITS.frameBytes],
    [FRAME.started, 64 * 1024],
    [FRAME.truncated, 64 * 1024],
    [FRAME.exit, 64 * 1024],
  ])('type %d may announce %d bytes and no more', (type, limit) => {
    expect(() => reader().read.push(frameHead(type, limit))).not.toThrow();
    expect(() => reader().read.push(frameHead(type, limit + 1))).toThrow(FrameError);
    expect(() => reader().read.push(frameHead(type, 0xffffffff))).toThrow(FrameError);
  });

  it('meets random bytes with a FrameError and nothing else', () => {
    const random = seeded(7);
    let refused = 0;
    for (let i = 0; i < 500; i += 1) {
      const { read } = reader();
      try {
        for (const piece of cut(random, randomBuffer(random, 200), 40)) read.push(piece);
      } catch (error) {
        expect(error).toBeInstanceOf(FrameError);
        refused += 1;
      }
    }
    expect(refused).toBeGreaterThan(450);
  });
});
