import { describe, expect, it } from 'vitest';
import { hasPvhEntry, kernelPayload } from '../../../firmware/bzimage.ts';

const ZSTD = Buffer.from([0x28, 0xb5, 0x2f, 0xfd, 1, 2, 3]);

/** A bzImage by the kernel's boot protocol, with two setup sectors. */
function bzImage(payload: Buffer, version = 0x020f): Buffer {
  const image = Buffer.alloc(3 * 512 + 16 + payload.length);
  image[0x1f1] = 2;
  image.write('HdrS', 0x202, 'latin1');
  image.writeUInt16LE(version, 0x206);
  image.writeUInt32LE(16, 0x248);
  image.writeUInt32LE(payload.length, 0x24c);
  payload.copy(image, 3 * 512 + 16);
  return image;
}

function withSize(payload: Buffer, size: number): Buffer {
  const trailer = Buffer.alloc(4);
  trailer.writeUInt32LE(size);
  return Buffer.concat([payload, trailer]);
}

describe('kernelPayload', () => {
  it('finds the compressed kernel and its size', () => {
    expect(kernelPayload(bzImage(withSize(ZSTD, 1234)))).toEqual({
      compression: 'zstd',
      data: ZSTD,
      uncompressedBytes: 1234,
    });
  });

  it('keeps the trailer of gzip, which is its own', () => {
    const gzip = withSize(Buffer.from([0x1f, 0x8b, 8, 0, 0, 0]), 99);
    expect(kernelPayload(bzImage(gzip))).toMatchObject({ data: gzip, uncompressedBytes: 99 });
  });

  it.each([
    ['no header', Buffer.alloc(4096)],
    ['too short', Buffer.alloc(16)],
    ['an old boot protocol', bzImage(withSize(ZSTD, 1), 0x0205)],
    ['an unknown compression', bzImage(Buffer.alloc(32, 7))],
    ['a payload beyond the end', bzImage(withSize(ZSTD, 1)).subarray(0, 3 * 512 + 18)],
  ])('is undefined for %s', (_name, image) => {
    expect(kernelPayload(image)).toBeUndefined();
  });
});

describe('hasPvhEntry', () => {
  function elf(noteType: number, name = 'Xen\0'): Buffer {
    const image = Buffer.alloc(64 + 56 + 24);
    image.writeUInt32BE(0x7f454c46, 0);
    image[4] = 2;
    image.writeBigUInt64LE(64n, 32);
    image.writeUInt16LE(56, 54);
    image.writeUInt16LE(1, 56);
    image.writeUInt32LE(4, 64); // PT_NOTE
    image.writeBigUInt64LE(120n, 64 + 8);
    image.writeBigUInt64LE(24n, 64 + 32);
    image.writeUInt32LE(4, 120);
    image.writeUInt32LE(8, 124);
    image.writeUInt32LE(noteType, 128);
    image.write(name, 132, 'latin1');
    return image;
  }

  it('finds the note', () => {
    expect(hasPvhEntry(elf(18))).toBe(true);
  });

  it.each([
    ['another note', elf(6)],
    ['the same number of another owner', elf(18, 'GNU\0')],
    ['no ELF', Buffer.alloc(256)],
    ['a table beyond the end', elf(18).subarray(0, 80)],
  ])('does not find it in %s', (_name, image) => {
    expect(hasPvhEntry(image)).toBe(false);
  });
});
