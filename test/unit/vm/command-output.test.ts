import { describe, expect, it } from 'vitest';
import { OutputCollector } from '../../../src/vm/command-output.ts';

const MIB = 2 ** 20;
const text = (maxBytes: number, listener?: (data: string) => unknown) =>
  new OutputCollector<'utf8'>({ encoding: 'utf8', maxBytes, listener });
const bytes = (maxBytes: number, listener?: (data: Buffer) => unknown) =>
  new OutputCollector<'buffer'>({ encoding: 'buffer', maxBytes, listener });

describe('OutputCollector', () => {
  it('keeps all that fits', async () => {
    const collector = text(10);
    for (const piece of ['01234', '', '56789']) await collector.push(Buffer.from(piece));
    expect(collector.value).toBe('0123456789');
    expect(collector.truncated).toBe(false);
  });

  it('keeps the last bytes, and says how many went before them', async () => {
    const collector = text(4);
    await collector.push(Buffer.from('0123456789'));
    expect(collector.value).toBe('[… 6 bytes truncated …]\n6789');
    expect(collector.truncated).toBe(true);
    await collector.push(Buffer.from('ab'));
    expect(collector.value).toBe('[… 8 bytes truncated …]\n89ab');
  });

  it('counts what the guest did not keep', async () => {
    const collector = text(100);
    collector.lost(1_000);
    await collector.push(Buffer.from('rest'));
    expect(collector.value).toBe('[… 1000 bytes truncated …]\nrest');
    expect(collector.truncated).toBe(true);
  });

  it('keeps nothing where nothing is wanted', async () => {
    const collector = text(0);
    await collector.push(Buffer.from('abc'));
    expect(collector.value).toBe('[… 3 bytes truncated …]\n');
    expect(bytes(0).value).toEqual(Buffer.alloc(0));
  });

  it('has no mark in bytes', async () => {
    const collector = bytes(2);
    await collector.push(Buffer.from([1, 2, 3, 255]));
    expect(collector.value).toEqual(Buffer.from([3, 255]));
    expect(collector.truncated).toBe(true);
  });

  it.each([1, 7, 65_535, 65_536, 65_537, 200_000])(
    'keeps the right bytes at the edges of its blocks: %d kept',
    async (maxBytes) => {
      const source = Buffer.alloc(400_000);
      for (let i = 0; i < source.length; i += 1) source[i] = (i * 31) % 251;
      const collector = bytes(maxBytes);
      let offset = 0;
      for (const length of [1, 65_535, 65_536, 3, 131_073, source.length]) {
        await collector.push(source.subarray(offset, offset + length));
        offset = Math.min(source.length, offset + length);
        const expected = source.subarray(Math.max(0, offset - maxBytes), offset);
        expect(collector.value.equals(expected)).toBe(true);
      }
    },
  );

  it('takes as much memory as it keeps, however small the pieces', async () => {
    const collector = bytes(MIB);
    const piece = Buffer.from('x');
    global.gc?.();
    const before = process.memoryUsage();
    for (let i = 0; i < 3 * MIB; i += 1) void collector.push(piece);
    const after = process.memoryUsage();
    expect(collector.value).toHaveLength(MIB);
    expect(after.arrayBuffers - before.arrayBuffers).toBeLessThan(4 * MIB);
    await collector.end();
  });

  it('hands text on in whole characters, wherever the pieces are cut', async () => {
    const pieces: string[] = [];
    const collector = text(100, (piece) => pieces.push(piece));
    for (const byte of Buffer.from('aé€😀')) await collector.push(Buffer.from([byte]));
    await collector.end();
    expect(pieces).toEqual(['a', 'é', '€', '😀']);
    expect(collector.value).toBe('aé€😀');
  });

  it('hands half a character at the end on as U+FFFD', async () => {
    const pieces: string[] = [];
    const collector = text(100, (piece) => pieces.push(piece));
    await collector.push(Buffer.from([0x61, 0xe2, 0x82]));
    await collector.end();
    expect(pieces.join('')).toBe('a\ufffd');
  });

  it('cuts text at whole characters', async () => {
    const collector = text(4);
    await collector.push(Buffer.from('€€')); // six bytes: the cut goes through the first character
    expect(collector.value).toBe('[… 3 bytes truncated …]\n€');
  });

  it('waits for its listener', async () => {
    let release = (): void => undefined;
    const gate = new Promise<void>((resolve) => (release = resolve));
    const collector = text(10, () => gate);
    let through = false;
    const pushed = collector.push(Buffer.from('x')).then(() => (through = true));
    await new Promise((resolve) => setImmediate(resolve));
    expect(through).toBe(false);
    release();
    await pushed;
  });

  it('lets its listener’s error through, and has kept the piece', async () => {
    const collector = text(10, () => {
      throw new Error('full');
    });
    await expect(collector.push(Buffer.from('x'))).rejects.toThrow('full');
    expect(collector.value).toBe('x');
  });
});
