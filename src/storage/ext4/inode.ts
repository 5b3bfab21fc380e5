/** Inodes of ext4, and where the data of files is. Pure. */
import { damaged } from './damage.ts';

/** `i_mode`: kinds of files. */
const KINDS: Readonly<Record<number, FileType>> = {
  0x1: 'fifo',
  0x2: 'character device',
  0x4: 'directory',
  0x6: 'block device',
  0x8: 'file',
  0xa: 'symlink',
  0xc: 'socket',
};
const FLAG_EXTENTS = 0x80000;
const I_BLOCK = 0x28;
const I_BLOCK_BYTES = 60;
const EXTRA_AT = 128;
const EXTENT_MAGIC = 0xf30a;
const EXTENT_BYTES = 12;
const MAX_EXTENT_DEPTH = 5;
/** Longer ones are allocated, and not written to: they read as zeros. */
const MAX_WRITTEN_BLOCKS = 32768;
/** Nodes of one file's tree: of an honest one, each has hundreds of extents. */
const MAX_NODES = 100_000;
/** Extents of one file: 4 GiB in which no block follows another. */
const MAX_EXTENTS = 1_000_000;
const DIRECT_BLOCKS = 12;

/** What a name stands for. */
export type FileType =
  'file' | 'directory' | 'symlink' | 'character device' | 'block device' | 'fifo' | 'socket';

/** An inode. */
export interface Inode {
  readonly number: number;
  /** Where it is on the disk: the same place, the same inode. */
  readonly place: number;
  readonly bytes: Buffer;
  readonly type: FileType;
  /** Permissions, with setuid, setgid and sticky. */
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly sizeBytes: number;
  /** Seconds since 1970. */
  readonly mtime: number;
  /** And these ns. */
  readonly mtimeNs: number;
}

/** Blocks of a file that follow each other on the disk. Blocks in none read as zeros. */
export interface Extent {
  readonly logical: number;
  readonly physical: number;
  readonly count: number;
}

/** Reads an inode. @throws DiffError there is none */
export function parseInode(number: number, place: number, bytes: Buffer): Inode {
  const mode = bytes.readUInt16LE(0);
  const type = KINDS[mode >> 12];
  if (type === undefined) throw damaged(`a name stands for inode ${number}, which is none`);
  const extraBytes = bytes.length > EXTRA_AT ? bytes.readUInt16LE(EXTRA_AT) : 0;
  const mtimeExtra = extraBytes >= 12 ? bytes.readUInt32LE(0x88) : 0;
  return {
    number,
    place,
    bytes,
    type,
    mode: mode & 0o7777,
    uid: bytes.readUInt16LE(0x2) + bytes.readUInt16LE(0x78) * 2 ** 16,
    gid: bytes.readUInt16LE(0x18) + bytes.readUInt16LE(0x7a) * 2 ** 16,
    sizeBytes: bytes.readUInt32LE(0x4) + bytes.readUInt32LE(0x6c) * 2 ** 32,
    mtime: bytes.readInt32LE(0x10) + (mtimeExtra & 3) * 2 ** 32,
    mtimeNs: mtimeExtra >>> 2,
  };
}

/** Major and minor number of a device, as they are written down. */
export function deviceOf({ bytes }: Inode): string {
  return bytes.toString('hex', I_BLOCK, I_BLOCK + 8);
}

/** Where a symlink points, if that is in the inode itself. */
export function shortTarget({ bytes, sizeBytes }: Inode): Buffer | undefined {
  const isShort = sizeBytes < I_BLOCK_BYTES && (bytes.readUInt32LE(0x20) & FLAG_EXTENTS) === 0;
  return isShort ? bytes.subarray(I_BLOCK, I_BLOCK + sizeBytes) : undefined;
}

/** Block with extended attributes; 0: none. */
export function attributeBlock({ bytes }: Inode): number {
  return bytes.readUInt32LE(0x68) + bytes.readUInt16LE(0x76) * 2 ** 32;
}

/**
 * Where the blocks of a file are, in their order in the file.
 * @param read a block of the file system, which fails where there is no such block
 * @throws DiffError
 */
export function extentsOf(inode: Inode, read: (block: number) => Buffer): Extent[] {
  const root = inode.bytes.subarray(I_BLOCK, I_BLOCK + I_BLOCK_BYTES);
  const found: Extent[] = [];
  if ((inode.bytes.readUInt32LE(0x20) & FLAG_EXTENTS) === 0) mapped(root, read, found);
  else walk(root, MAX_EXTENT_DEPTH + 1, { read, found, nodes: { left: MAX_NODES } });
  let end = 0;
  for (const { logical, count } of found) {
    if (logical < end) throw damaged(`blocks of inode ${inode.number} overlap`);
    end = logical + count;
  }
  return found;
}

interface Walk {
  readonly read: (block: number) => Buffer;
  readonly found: Extent[];
  readonly nodes: { left: number };
}

function walk(node: Buffer, above: number, o: Walk): void {
  const entries = node.readUInt16LE(2);
  const depth = node.readUInt16LE(6);
  o.nodes.left -= 1;
  const fits = (entries + 1) * EXTENT_BYTES <= node.length;
  if (node.readUInt16LE(0) !== EXTENT_MAGIC || !fits || depth >= above || o.nodes.left < 0)
    throw damaged('a file’s list of blocks contradicts itself');
  for (let at = EXTENT_BYTES; at < (entries + 1) * EXTENT_BYTES; at += EXTENT_BYTES) {
    const logical = node.readUInt32LE(at);
    if (depth > 0) {
      const child = node.readUInt32LE(at + 4) + node.readUInt16LE(at + 8) * 2 ** 32;
      walk(o.read(child), depth, o);
      continue;
    }
    const count = node.readUInt16LE(at + 4);
    const physical = node.readUInt32LE(at + 8) + node.readUInt16LE(at + 6) * 2 ** 32;
    if (count > 0 && count <= MAX_WRITTEN_BLOCKS) add(o.found, { logical, physical, count });
  }
}

/** Adds an extent, or makes the last one longer. */
function add(found: Extent[], { logical, physical, count }: Extent): void {
  const last = found.at(-1);
  if (
    last !== undefined &&
    last.logical + last.count === logical &&
    last.physical + last.count === physical
  )
    found[found.length - 1] = { ...last, count: last.count + count };
  else if (found.length < MAX_EXTENTS) found.push({ logical, physical, count });
  else throw damaged('a file is in too many pieces');
}

/** The block map of ext2 and ext3, which a file may still have (`chattr -e`). */
function mapped(root: Buffer, read: (block: number) => Buffer, found: Extent[]): void {
  let logical = 0;
  let left = MAX_NODES;
  const perBlock = read(0).length / 4;
  const visit = (pointer: number, level: number) => {
    if (pointer === 0) {
      logical += perBlock ** level;
      return;
    }
    if (level === 0) {
      add(found, { logical, physical: pointer, count: 1 });
      logical += 1;
      return;
    }
    left -= 1;
    if (left < 0) throw damaged('a file’s list of blocks has no end');
    const block = read(pointer);
    for (let at = 0; at < block.length; at += 4) visit(block.readUInt32LE(at), level - 1);
  };
  for (let index = 0; index < DIRECT_BLOCKS + 3; index += 1) {
    visit(root.readUInt32LE(index * 4), Math.max(0, index - DIRECT_BLOCKS + 1));
  }
}
