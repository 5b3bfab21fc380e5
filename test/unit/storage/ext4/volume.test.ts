/** Limits of what is read of a file system: one that is made up as it is read can be of any size. */
import { describe, expect, it } from 'vitest';
import { Ext4Volume, type Disk } from '../../../../src/storage/ext4/volume.ts';

const BLOCK_BYTES = 4096;
const BLOCKS = 2 ** 20;
const INODE_BYTES = 256;
const TABLE_BLOCK = 2;
/** Of what a test puts there. */
const FIRST_BLOCK = 16;
const JOURNAL_INODE = 8;
const INODE = 12;
const MAX_EXTENT = 32_768;

interface Piece {
  readonly logical: number;
  readonly physical: number;
  readonly count: number;
}

function superblock(hasToReplay: boolean): Buffer {
  const bytes = Buffer.alloc(1024);
  const words: [number, number][] = [
    [0x0, 32],
    [0x4, BLOCKS],
    [0x18, 2],
    [0x20, BLOCKS],
    [0x28, 32],
    [0x4c, 1],
    [0x60, 0x40 | (hasToReplay ? 0x4 : 0)],
    [0xe0, JOURNAL_INODE],
  ];
  for (const [at, word] of words) bytes.writeUInt32LE(word, at);
  bytes.writeUInt16LE(0xef53, 0x38);
  bytes.writeUInt16LE(INODE_BYTES, 0x58);
  return bytes;
}

/** A node of a tree of extents. */
function node(depth: number, pieces: readonly Piece[], bytes = Buffer.alloc(60)): Buffer {
  bytes.writeUInt16LE(0xf30a, 0);
  bytes.writeUInt16LE(pieces.length, 2);
  bytes.writeUInt16LE(depth, 6);
  pieces.forEach(({ logical, physical, count }, index) => {
    const at = 12 * (index + 1);
    bytes.writeUInt32LE(logical, at);
    if (depth > 0) bytes.writeUInt32LE(physical, at + 4);
    else {
      bytes.writeUInt16LE(count, at + 4);
      bytes.writeUInt32LE(physical, at + 8);
    }
  });
  return bytes;
}

function inode(mode: number, sizeBytes: number, tree: Buffer): Buffer {
  const bytes = Buffer.alloc(INODE_BYTES);
  bytes.writeUInt16LE(mode, 0);
  bytes.writeUInt32LE(sizeBytes, 0x4);
  bytes.writeUInt32LE(0x80000, 0x20);
  tree.copy(bytes, 0x28);
  return bytes;
}

/** @param block what is in a block from {@link FIRST_BLOCK} on */
function disk(o: {
  inodes: Readonly<Record<number, Buffer>>;
  block?: (number: number) => Buffer;
  hasToReplay?: boolean;
}): Disk {
  const table = Buffer.alloc(2 * BLOCK_BYTES);
  for (const [number, bytes] of Object.entries(o.inodes))
    bytes.copy(table, (Number(number) - 1) * INODE_BYTES);
  const descriptors = Buffer.alloc(BLOCK_BYTES);
  descriptors.writeUInt32LE(TABLE_BLOCK, 0x8);
  return {
    sizeBytes: BLOCKS * BLOCK_BYTES,
    placeOf: (offset) => offset,
    read: (offset, length) => {
      if (offset === 1024) return superblock(o.hasToReplay ?? false).subarray(0, length);
      const number = offset / BLOCK_BYTES;
      if (number === 1) return descriptors;
      const at = (number - TABLE_BLOCK) * BLOCK_BYTES;
      if (at < table.length) return table.subarray(at, at + length);
      return o.block?.(number) ?? Buffer.alloc(length);
    },
  };
}

/** A block with as many names as fit, each told from those of other blocks. */
function names(number: number): Buffer {
  const bytes = Buffer.alloc(BLOCK_BYTES);
  const entry = 16;
  for (let at = 0; at < BLOCK_BYTES; at += entry) {
    bytes.writeUInt32LE(INODE, at);
    bytes.writeUInt16LE(entry, at + 4);
    bytes[at + 6] = 8;
    bytes.write(
      ((number * BLOCK_BYTES + at) >>> 0).toString(16).padStart(8, '0'),
      at + 8,
      'latin1',
    );
  }
  return bytes;
}

describe('a directory', () => {
  const whole = node(0, [{ logical: 0, physical: FIRST_BLOCK, count: MAX_EXTENT }]);
  const open = (sizeBytes: number) => {
    const volume = new Ext4Volume(
      disk({ inodes: { [INODE]: inode(0x41ed, sizeBytes, whole) }, block: names }),
    );
    return volume.names(volume.inode(INODE));
  };

  it('has as many names as fit into a million', () => {
    expect(open(3_900 * BLOCK_BYTES).size).toBe(3_900 * 256);
    expect(() => open(3_910 * BLOCK_BYTES)).toThrow('a directory has too many names');
  }, 60_000);

  it('of more bytes than those take is refused unread', () => {
    expect(() => open(2 ** 27 + 1)).toThrow('a directory is too large');
  });
});

describe('a symlink', () => {
  it('that is longer than a path is refused', () => {
    const tree = node(0, [{ logical: 0, physical: FIRST_BLOCK, count: 2 }]);
    const open = (sizeBytes: number) => {
      const block = () => Buffer.alloc(BLOCK_BYTES, 'x');
      const volume = new Ext4Volume(
        disk({ inodes: { [INODE]: inode(0xa1ff, sizeBytes, tree) }, block }),
      );
      return volume.target(volume.inode(INODE));
    };
    expect(open(4096)).toHaveLength(4096);
    expect(() => open(4097)).toThrow('a symlink is too long');
  });
});

describe('a journal', () => {
  /** A file system whose journal has these pieces, told of in one block. */
  const open = (pieces: readonly Piece[]) => {
    const root = node(1, [{ logical: 0, physical: FIRST_BLOCK, count: 0 }]);
    const leaf = node(0, pieces, Buffer.alloc(BLOCK_BYTES));
    return new Ext4Volume(
      disk({
        inodes: { [JOURNAL_INODE]: inode(0x8180, 0, root) },
        block: (number) => (number === FIRST_BLOCK ? leaf : Buffer.alloc(BLOCK_BYTES)),
        hasToReplay: true,
      }),
    );
  };
  const scattered = (count: number) =>
    Array.from({ length: count }, (_, at) => ({
      ...{ logical: at, physical: 100 + 2 * at, count: 1 },
    }));
  const inARow = (count: number) =>
    Array.from({ length: count }, (_, at) => ({
      ...{ logical: at * MAX_EXTENT, physical: 100 + at * MAX_EXTENT, count: MAX_EXTENT },
    }));

  it('in more pieces than mkfs makes is refused', () => {
    expect(() => open(scattered(257))).toThrow('its journal is in too many pieces');
    expect(() => open(scattered(256))).toThrow('its journal is none'); // so it was looked into
  });

  it('that is larger than mkfs makes is refused', () => {
    expect(() => open(inARow(9))).toThrow('its journal is too large');
    expect(() => open(inARow(8))).toThrow('its journal is none');
  });

  it('with a hole is refused', () => {
    expect(() => open([{ logical: 1, physical: 100, count: 1 }])).toThrow('its journal has a hole');
  });
});
