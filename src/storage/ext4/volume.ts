/**
 * An ext4 file system on a disk, to be read, by code that trusts nothing in it: it was written by a guest.
 * What its journal holds is laid over it in memory.
 */
import type { DiskReader } from '../disk-reader.ts';
import { attributesOf } from './attributes.ts';
import { damaged } from './damage.ts';
import { readNames } from './directory.ts';
import {
  attributeBlock,
  extentsOf,
  parseInode,
  shortTarget,
  type Extent,
  type Inode,
} from './inode.ts';
import { replayedBlocks, unescaped, type Journaled } from './journal.ts';
import {
  inodeTableOf,
  parseSuperblock,
  SUPERBLOCK_BYTES,
  SUPERBLOCK_OFFSET,
  type Superblock,
} from './superblock.ts';

/** Inode of the root directory. */
export const ROOT_INODE = 2;
/** Longest target of a symlink: PATH_MAX. */
const MAX_TARGET_BYTES = 4096;
/** A directory with a million names. */
const MAX_DIRECTORY_BYTES = 2 ** 27;
const MAX_DIRECTORY_NAMES = 1_000_000;
/** Pieces of a journal: mkfs makes it of one, or of a few. */
const MAX_JOURNAL_EXTENTS = 256;
/** The largest that mkfs makes by itself: 1 GiB. */
const MAX_JOURNAL_BLOCKS = 2 ** 18;

/** What a file system is read from. */
export type Disk = Pick<DiskReader, 'sizeBytes' | 'placeOf' | 'read'>;

/** A file system. */
export class Ext4Volume {
  readonly #disk: Disk;
  #superblock: Superblock;
  /** First blocks of the groups' inode tables. */
  readonly #inodeTables: number[] = [];
  readonly #journaled = new Map<number, { block: number; escaped: boolean }>();

  /** @throws DiffError no ext4 that can be read */
  constructor(disk: Disk) {
    this.#disk = disk;
    const offset = SUPERBLOCK_OFFSET;
    this.#superblock = parseSuperblock(disk.read(offset, SUPERBLOCK_BYTES), disk.sizeBytes);
    this.#readGroups();
    if (!this.#superblock.hasToReplay) return;
    this.#replay();
    const { blockBytes, firstDataBlock } = this.#superblock;
    const at = offset - firstDataBlock * blockBytes;
    const bytes = this.block(firstDataBlock).subarray(at, at + SUPERBLOCK_BYTES);
    this.#superblock = parseSuperblock(bytes, disk.sizeBytes);
    this.#readGroups();
  }

  get blockBytes(): number {
    return this.#superblock.blockBytes;
  }

  /** @throws DiffError there is no such block */
  block(number: number): Buffer {
    const journaled = this.#journaled.get(number);
    if (journaled === undefined) return this.#home(number);
    const block = this.#home(journaled.block);
    return journaled.escaped ? unescaped(block) : block;
  }

  /** Where a block is; as {@link DiskReader.placeOf}. */
  placeOf(number: number): number {
    const journaled = this.#journaled.get(number);
    const place = this.#disk.placeOf(this.#offsetOf(journaled?.block ?? number));
    return journaled?.escaped === true ? place + 0.25 : place;
  }

  /**
   * @param same given back where it is this very one, on the same place
   * @throws DiffError
   */
  inode(number: number, same?: Inode): Inode {
    const { inodes, inodesPerGroup, inodeBytes, blockBytes } = this.#superblock;
    if (number < 1 || number > inodes) throw damaged(`there is no inode ${number}`);
    const table = this.#inodeTables[Math.floor((number - 1) / inodesPerGroup)] ?? 0;
    const at = ((number - 1) % inodesPerGroup) * inodeBytes;
    const block = table + Math.floor(at / blockBytes);
    const from = at % blockBytes;
    const place = this.placeOf(block) + from;
    if (same?.number === number && same.place === place) return same;
    const bytes = this.block(block).subarray(from, from + inodeBytes);
    return parseInode(number, place, bytes);
  }

  extents(inode: Inode): Extent[] {
    const read = (block: number) => this.block(block);
    return extentsOf(inode, read);
  }

  /** Names in a directory, bytes as `latin1`, with their inodes. */
  names(directory: Inode): Map<string, number> {
    const names = new Map<string, number>();
    if (directory.sizeBytes > MAX_DIRECTORY_BYTES) throw damaged('a directory is too large');
    const blocks = Math.ceil(directory.sizeBytes / this.blockBytes);
    for (const { logical, physical, count } of this.extents(directory)) {
      for (let index = 0; index < count && logical + index < blocks; index += 1) {
        readNames(this.block(physical + index), names);
        if (names.size > MAX_DIRECTORY_NAMES) throw damaged('a directory has too many names');
      }
    }
    return names;
  }

  /** Where a symlink points, bytes as `latin1`. */
  target(symlink: Inode): string {
    const short = shortTarget(symlink);
    if (short !== undefined) return short.toString('latin1');
    const { sizeBytes } = symlink;
    if (sizeBytes > MAX_TARGET_BYTES) throw damaged('a symlink is too long');
    const parts = this.extents(symlink)
      .slice(0, Math.ceil(sizeBytes / this.blockBytes))
      .map(({ physical }) => this.block(physical));
    return Buffer.concat(parts).toString('latin1', 0, sizeBytes);
  }

  attributes(inode: Inode): string {
    const block = attributeBlock(inode);
    return attributesOf(inode.bytes, block === 0 ? undefined : this.block(block));
  }

  #home(number: number): Buffer {
    return this.#disk.read(this.#offsetOf(number), this.blockBytes);
  }

  #offsetOf(number: number): number {
    if (number >= this.#superblock.blocks) throw damaged(`there is no block ${number}`);
    return number * this.blockBytes;
  }

  #readGroups(): void {
    const { groups, descriptorBytes, firstDataBlock, blockBytes } = this.#superblock;
    const perBlock = blockBytes / descriptorBytes;
    this.#inodeTables.length = 0;
    for (let group = 0; group < groups; group += 1) {
      const block = this.block(firstDataBlock + 1 + Math.floor(group / perBlock));
      const at = (group % perBlock) * descriptorBytes;
      this.#inodeTables.push(inodeTableOf(block.subarray(at, at + descriptorBytes)));
    }
  }

  #replay(): void {
    const extents = this.extents(this.inode(this.#superblock.journalInode));
    if (extents.length > MAX_JOURNAL_EXTENTS) throw damaged('its journal is in too many pieces');
    const physical = (index: number): number => {
      const extent = extents.find(
        ({ logical, count }) => index >= logical && index < logical + count,
      );
      if (extent === undefined) throw damaged('its journal has a hole');
      return extent.physical + index - extent.logical;
    };
    const last = extents.at(-1);
    const blocks = last === undefined ? 0 : last.logical + last.count;
    if (blocks > MAX_JOURNAL_BLOCKS) throw damaged('its journal is too large');
    const found = replayedBlocks((index) => this.#home(physical(index)), blocks);
    const where = ({ at, escaped }: Journaled) => ({ block: physical(at), escaped });
    for (const [number, entry] of found) this.#journaled.set(number, where(entry));
  }
}
