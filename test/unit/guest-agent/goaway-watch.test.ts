import { describe, expect, it } from 'vitest';
import { GoawayWatch, PREFACE_BYTES } from '../../../guest-agent/goaway-watch.ts';
import { frame, TYPE, u32 } from '../../integration/guest/hostile/http2-frames.ts';
import { cut, seeded } from './random.ts';

const PREFACE = Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n');
const goaway = (code: number, debug = '') =>
  frame(TYPE.goaway, 0, 0, Buffer.concat([u32(0), u32(code), Buffer.from(debug)]));

function codesIn(pieces: readonly Buffer[]): number[] {
  const codes: number[] = [];
  const watch = new GoawayWatch(PREFACE_BYTES, (code) => codes.push(code));
  for (const piece of pieces) watch.push(piece);
  return codes;
}

describe('GoawayWatch', () => {
  const bytes = Buffer.concat([
    PREFACE,
    frame(TYPE.settings, 0, 0, Buffer.alloc(36)),
    frame(TYPE.settings, 1, 0),
    // What looks like one inside of data is none.
    frame(TYPE.data, 0, 1, goaway(3)),
    frame(TYPE.headers, 4, 3, Buffer.from([0x88])),
    goaway(6, 'why'),
    frame(TYPE.ping, 0, 0, Buffer.alloc(8)),
    goaway(0),
  ]);

  it('finds each, whole or in two pieces', () => {
    expect(codesIn([bytes])).toEqual([6, 0]);
    for (let at = 1; at < bytes.length; at += 1) {
      expect(codesIn([bytes.subarray(0, at), bytes.subarray(at)]), `cut at ${at}`).toEqual([6, 0]);
    }
  });

  it.each([1, 2, 3])('finds each, however it is cut (seed %d)', (seed) => {
    expect(codesIn(cut(seeded(seed), bytes, 7))).toEqual([6, 0]);
  });
});
