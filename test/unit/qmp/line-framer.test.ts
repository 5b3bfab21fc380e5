import { describe, expect, it } from 'vitest';
import { LineFramer } from '../../../qmp/line-framer.ts';

/** Cuts a text into pieces of this size and frames them. */
function frame(text: string, pieceBytes: number, maxLineBytes?: number): string[] {
  const framer = new LineFramer(maxLineBytes);
  const bytes = Buffer.from(text);
  const lines: string[] = [];
  for (let from = 0; from < bytes.length; from += pieceBytes) {
    lines.push(...framer.push(bytes.subarray(from, from + pieceBytes)));
  }
  return lines;
}

describe('line framer', () => {
  it('gives the same lines however the bytes are cut', () => {
    const text = 'eins\r\nzwölf 🦀\n\n\r\n\u2028 drei\r\nrest';
    const lines = ['eins', 'zwölf 🦀', '\u2028 drei'];
    for (let pieceBytes = 1; pieceBytes <= 40; pieceBytes += 1) {
      expect(frame(text, pieceBytes)).toEqual(lines);
    }
  });

  it('knows whether it stands inside a line', () => {
    const framer = new LineFramer();
    expect(framer.midLine).toBe(false);
    expect([...framer.push(Buffer.from('a\nb'))]).toEqual(['a']);
    expect(framer.midLine).toBe(true);
    expect([...framer.push(Buffer.from('\n'))]).toEqual(['b']);
    expect(framer.midLine).toBe(false);
  });

  it('does not see later changes of the chunks it was given', () => {
    const framer = new LineFramer();
    const chunk = Buffer.from('abc');
    expect([...framer.push(chunk)]).toEqual([]);
    chunk.fill('x');
    expect([...framer.push(Buffer.from('\n'))]).toEqual(['abc']);
  });

  it.each([1, 3, 100])('has its limit for a line in pieces of %d', (pieceBytes) => {
    expect(frame('1234567890\n1234567890\n', pieceBytes, 10)).toEqual(['1234567890', '1234567890']);
    for (const text of ['12345678901\n', '12345678901', 'ok\n12345678901']) {
      expect(() => frame(text, pieceBytes, 10)).toThrow('longer than 10 bytes');
    }
  });

  it('refuses what is no UTF-8, and half a character at the end of a line', () => {
    const push = (...bytes: number[]): string[] => [...new LineFramer().push(Buffer.from(bytes))];
    for (const bytes of [[0xff], [0xc3, 0x28], [0xf0, 0x9f, 0xa6], [0xed, 0xa0, 0x80]]) {
      expect(() => push(...bytes, 0x0a)).toThrow('not valid UTF-8');
    }
  });

  it('needs little more than the line itself where it comes byte by byte', () => {
    const framer = new LineFramer();
    const bytes = 2 * 1024 * 1024;
    const used = (): number => process.memoryUsage().heapUsed + process.memoryUsage().external;
    const before = used();
    for (let i = 0; i < bytes; i += 1) for (const _line of framer.push(Buffer.from('x')));
    expect(used() - before).toBeLessThan(64 * 1024 * 1024);
    expect([...framer.push(Buffer.from('\n'))][0]).toHaveLength(bytes);
  });
});
