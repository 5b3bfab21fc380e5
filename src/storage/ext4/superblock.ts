/**
 * The superblock and the group descriptors of ext4, after the kernel's
 * Documentation/filesystems/ext4/ and fs/ext4/ext4.h. Pure.
 */
import { damaged, unsupported } from './damage.ts';

export const SUPERBLOCK_OFFSET = 1024;
export const SUPERBLOCK_BYTES = 1024;
const MAGIC = 0xef53;
/** The file system was not unmounted: what its journal holds belongs to it. */
const INCOMPAT_RECOVER = 0x4;
const INCOMPAT_64BIT = 0x80;
/**
 * filetype, recover, extents, 64bit, mmp, flex_bg, ea_inode, csum_seed, largedir, casefold. Not: encryption,
 * inline data, meta_bg, a journal elsewhere, what will come.
 */
const INCOMPAT_KNOWN = 0x2 | 0x4 | 0x40 | 0x80 | 0x100 | 0x200 | 0x400 | 0x2000 | 0x4000 | 0x20000;
const INCOMPAT_ENCRYPT = 0x10000;
const MAX_BLOCK_BITS = 6; // 64 KiB: one cluster
/** Of a terabyte in the smallest groups that mke2fs makes of blocks of 1 KiB, some more than 2^17. */
const MAX_GROUPS = 2 ** 20;
const MIN_INODE_BYTES = 128;
const DESCRIPTOR_BYTES = 32;

/** What a superblock says. */
export interface Superblock {
  readonly blockBytes: number;
  readonly blocks: number;
  readonly firstDataBlock: number;
  readonly inodes: number;
  readonly inodesPerGroup: number;
  readonly inodeBytes: number;
  readonly groups: number;
  readonly descriptorBytes: number;
  readonly journalInode: number;
  readonly hasToReplay: boolean;
}

/** Reads a superblock. @throws DiffError no ext4, or one that cannot be read */
export function parseSuperblock(bytes: Buffer, diskBytes: number): Superblock {
  if (bytes.length < SUPERBLOCK_BYTES || bytes.readUInt16LE(0x38) !== MAGIC)
    throw unsupported('there is no ext4 file system on it, or it is encrypted');
  const incompat = bytes.readUInt32LE(0x60);
  if ((incompat & INCOMPAT_ENCRYPT) !== 0) throw unsupported('its files are encrypted');
  const unknown = (incompat & ~INCOMPAT_KNOWN) >>> 0;
  if (unknown !== 0)
    throw unsupported(`its ext4 has features that are not known here (0x${unknown.toString(16)})`);
  const is64Bit = (incompat & INCOMPAT_64BIT) !== 0;
  const blockBits = bytes.readUInt32LE(0x18);
  if (blockBits > MAX_BLOCK_BITS) throw damaged('its blocks have an impossible size');
  const blockBytes = 1024 << blockBits;
  const blocks = bytes.readUInt32LE(0x4) + (is64Bit ? bytes.readUInt32LE(0x150) * 2 ** 32 : 0);
  const firstDataBlock = bytes.readUInt32LE(0x14);
  const blocksPerGroup = bytes.readUInt32LE(0x20);
  const inodesPerGroup = bytes.readUInt32LE(0x28);
  const inodeBytes = bytes.readUInt32LE(0x4c) === 0 ? MIN_INODE_BYTES : bytes.readUInt16LE(0x58);
  const descriptorBytes = is64Bit ? bytes.readUInt16LE(0xfe) : DESCRIPTOR_BYTES;
  const groups = Math.ceil((blocks - firstDataBlock) / blocksPerGroup);
  const inodes = bytes.readUInt32LE(0);
  const isSound =
    blocks > 0 &&
    blocks * blockBytes <= diskBytes &&
    firstDataBlock <= 1 &&
    blocksPerGroup > 0 &&
    groups <= MAX_GROUPS &&
    inodesPerGroup > 0 &&
    groups * inodesPerGroup >= inodes &&
    isPowerOfTwo(inodeBytes) &&
    inodeBytes >= MIN_INODE_BYTES &&
    inodeBytes <= blockBytes &&
    isPowerOfTwo(descriptorBytes) &&
    descriptorBytes >= DESCRIPTOR_BYTES &&
    descriptorBytes <= blockBytes;
  if (!isSound) throw damaged('its superblock contradicts itself');
  return {
    ...{ blockBytes, blocks, firstDataBlock, inodes, inodesPerGroup, inodeBytes, groups },
    descriptorBytes,
    journalInode: bytes.readUInt32LE(0xe0),
    hasToReplay: (incompat & INCOMPAT_RECOVER) !== 0,
  };
}

/** First block of a group's inode table, from its descriptor. */
export function inodeTableOf(descriptor: Buffer): number {
  const high = descriptor.length >= 64 ? descriptor.readUInt32LE(0x28) : 0;
  return descriptor.readUInt32LE(0x8) + high * 2 ** 32;
}

function isPowerOfTwo(value: number): boolean {
  return value > 0 && (value & (value - 1)) === 0;
}
