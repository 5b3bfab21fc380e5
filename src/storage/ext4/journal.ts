/**
 * What a journal (jbd2) holds: blocks that were written to it and not to their places yet, as a kernel
 * would put them there at the next mount. After fs/jbd2/recovery.c and include/linux/jbd2.h. Pure.
 */
import { damaged, unsupported } from './damage.ts';

const MAGIC = 0xc03b3998;
const HEADER_BYTES = 12;
const DESCRIPTOR = 1;
const COMMIT = 2;
const SUPERBLOCK_V2 = 4;
const REVOKE = 5;
const FEATURE_64BIT = 0x2;
const FEATURE_CSUM_V2 = 0x8;
const FEATURE_CSUM_V3 = 0x10;
const FEATURE_FAST_COMMIT = 0x20;
const TAG_ESCAPED = 1;
const TAG_SAME_UUID = 2;
const TAG_DELETED = 4;
const TAG_LAST = 8;
const UUID_BYTES = 16;
/** Blocks that one transaction may revoke; a busy one frees some thousands. */
const MAX_REVOKED = 2 ** 20;

/** A block whose newest contents are in the journal. */
export interface Journaled {
  /** Index of the block in the journal. */
  readonly at: number;
  /** Its first four bytes are the journal's magic, which had to be taken out. */
  readonly escaped: boolean;
}

interface Journal {
  readonly read: (index: number) => Buffer;
  readonly first: number;
  readonly length: number;
  readonly tagBytes: number;
  readonly is64Bit: boolean;
  readonly isCsum3: boolean;
  /** Bytes at the end of a block that are a checksum. */
  readonly tailBytes: number;
}

/** Tags and revoked blocks of a transaction that is not known to be whole yet. */
interface Pending {
  readonly writes: { readonly block: number; readonly entry: Journaled }[];
  readonly revoked: number[];
}

/**
 * Blocks to be taken from the journal, by their numbers in the file system. Transactions without their commit
 * block never happened. Checksums are not looked at: what a running QEMU has flushed is not torn.
 * @param read a block of the journal by its index
 * @param blocks how many it has
 */
export function replayedBlocks(
  read: (index: number) => Buffer,
  blocks: number,
): Map<number, Journaled> {
  const replayed = new Map<number, Journaled>();
  const superblock = read(0);
  if (superblock.readUInt32BE(0) !== MAGIC) throw damaged('its journal is none');
  const features = superblock.readUInt32BE(4) === SUPERBLOCK_V2 ? superblock.readUInt32BE(0x28) : 0;
  if ((features & FEATURE_FAST_COMMIT) !== 0) throw unsupported('its journal has fast commits');
  const first = superblock.readUInt32BE(0x14);
  const length = superblock.readUInt32BE(0x10);
  const start = superblock.readUInt32BE(0x1c);
  if (start === 0) return replayed;
  if (length > blocks || first === 0 || first >= length || start < first || start >= length)
    throw damaged('its journal contradicts itself');
  const is64Bit = (features & FEATURE_64BIT) !== 0;
  const isCsum3 = (features & FEATURE_CSUM_V3) !== 0;
  const hasCsum = isCsum3 || (features & FEATURE_CSUM_V2) !== 0;
  const plainTag = (is64Bit ? 12 : 8) + (hasCsum ? 2 : 0);
  const tagBytes = isCsum3 ? 16 : plainTag;
  const tailBytes = hasCsum ? 4 : 0;
  const journal = { read, first, length, tagBytes, is64Bit, isCsum3, tailBytes };
  walk(journal, start, superblock.readUInt32BE(0x18), replayed);
  return replayed;
}

function walk(
  journal: Journal,
  start: number,
  firstSequence: number,
  replayed: Map<number, Journaled>,
): void {
  const { read, first, length } = journal;
  const wrapped = (index: number) => (index >= length ? index - length + first : index);
  let sequence = firstSequence;
  let pending: Pending = { writes: [], revoked: [] };
  // Each turn goes on by one block at least, and no journal is longer than itself.
  for (let at = start, left = length; left > 0;) {
    const block = read(at);
    if (block.readUInt32BE(0) !== MAGIC || block.readUInt32BE(8) !== sequence) return;
    const kind = block.readUInt32BE(4);
    let used = 1;
    if (kind === DESCRIPTOR) {
      for (const tag of tagsOf(block, journal)) {
        const entry = { at: wrapped(at + used), escaped: tag.escaped };
        if (!tag.deleted) pending.writes.push({ block: tag.block, entry });
        used += 1;
      }
    } else if (kind === REVOKE) {
      pending.revoked.push(...revokedBy(block, journal));
      if (pending.revoked.length > MAX_REVOKED) throw damaged('its journal revokes too much');
    } else if (kind === COMMIT) {
      // A revoked block has been freed: what earlier transactions, and this, wrote to it is not its own.
      for (const { block: number, entry } of pending.writes) replayed.set(number, entry);
      for (const number of pending.revoked) replayed.delete(number);
      pending = { writes: [], revoked: [] };
      sequence = (sequence + 1) >>> 0;
    } else {
      return;
    }
    at = wrapped(at + used);
    left -= used;
  }
}

function* tagsOf(
  block: Buffer,
  { tagBytes, is64Bit, isCsum3, tailBytes }: Journal,
): Generator<{ block: number; escaped: boolean; deleted: boolean }> {
  const end = block.length - tailBytes;
  for (let at = HEADER_BYTES; at + tagBytes <= end;) {
    const flags = isCsum3 ? block.readUInt32BE(at + 4) : block.readUInt16BE(at + 6);
    const high = is64Bit ? block.readUInt32BE(at + 8) : 0;
    yield {
      block: block.readUInt32BE(at) + high * 2 ** 32,
      escaped: (flags & TAG_ESCAPED) !== 0,
      deleted: (flags & TAG_DELETED) !== 0,
    };
    if ((flags & TAG_LAST) !== 0) return;
    at += tagBytes + ((flags & TAG_SAME_UUID) === 0 ? UUID_BYTES : 0);
  }
}

function revokedBy(block: Buffer, { is64Bit, tailBytes }: Journal): number[] {
  const end = Math.min(block.readUInt32BE(HEADER_BYTES), block.length - tailBytes);
  const step = is64Bit ? 8 : 4;
  const found: number[] = [];
  for (let at = HEADER_BYTES + 4; at + step <= end; at += step) {
    found.push(is64Bit ? Number(block.readBigUInt64BE(at)) : block.readUInt32BE(at));
  }
  return found;
}

/** Gives an escaped block its first four bytes back. */
export function unescaped(block: Buffer): Buffer {
  const copy = Buffer.from(block);
  copy.writeUInt32BE(MAGIC, 0);
  return copy;
}
