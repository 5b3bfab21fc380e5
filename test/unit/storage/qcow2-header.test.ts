import { describe, expect, it } from 'vitest';
import { buildOverlay, parseHeader } from '../../../src/storage/qcow2-header.ts';

describe('qcow2 header', () => {
  it('reads back what it wrote', () => {
    const { chunks, fileBytes } = buildOverlay({
      backingPath: '/images/base',
      virtualBytes: 8 * 2 ** 30,
    });
    const header = chunks[0]!.data;
    expect(parseHeader(header)).toEqual({ version: 3, virtualBytes: 8 * 2 ** 30 });
    const nameOffset = Number(header.readBigUInt64BE(8));
    expect(header.subarray(nameOffset).toString()).toBe('/images/base');
    expect(fileBytes).toBe(4 * 65_536);
  });

  it('gives every cluster of the file one reference', () => {
    const { chunks, fileBytes } = buildOverlay({ backingPath: '/b', virtualBytes: 2 ** 40 });
    const refcounts = chunks[2]!.data;
    expect(refcounts.length / 2).toBe(fileBytes / 65_536);
    for (let i = 0; i < refcounts.length; i += 2) expect(refcounts.readUInt16BE(i)).toBe(1);
  });

  it('refuses sizes and names that the format or QEMU would refuse', () => {
    expect(() => buildOverlay({ backingPath: '/b', virtualBytes: 1000 })).toThrow(RangeError);
    expect(() => buildOverlay({ backingPath: '/b', virtualBytes: 2 ** 41 })).toThrow(RangeError);
    expect(() => buildOverlay({ backingPath: 'x'.repeat(1024), virtualBytes: 512 })).toThrow(
      RangeError,
    );
  });

  it('does not take another file for a qcow2', () => {
    expect(parseHeader(Buffer.alloc(32))).toBeUndefined();
    expect(parseHeader(Buffer.from('QFI'))).toBeUndefined();
  });
});
