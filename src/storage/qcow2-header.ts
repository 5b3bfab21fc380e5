/**
 * The little of the qcow2 format that a fresh overlay needs, after
 * https://gitlab.com/qemu-project/qemu/-/blob/master/docs/interop/qcow2.txt. Pure.
 *
 * An overlay without data is four clusters: header, refcount table, refcount block, L1 table. To write
 * them takes well under a millisecond; `qemu-img create` takes 10 to 15, most of it dynamic linking.
 */

/** `QFI\xfb`. */
const MAGIC = 0x514649fb;
const VERSION = 3;
/** 64 KiB, QEMU's own default. */
const CLUSTER_BITS = 16;
const CLUSTER_BYTES = 1 << CLUSTER_BITS;
/** 16-bit refcounts: 2^4 bits. */
const REFCOUNT_ORDER = 4;
const HEADER_BYTES = 104;
/** Header extension that names the backing file's format. */
const BACKING_FORMAT_EXTENSION = 0xe2792aca;
/** Longest backing file name, by the format. */
const MAX_BACKING_NAME_BYTES = 1023;
const L1_ENTRY_BYTES = 8;
/** What one L1 entry maps: an L2 table of one cluster, 8 bytes an entry, one cluster each. */
const BYTES_PER_L1_ENTRY = (CLUSTER_BYTES / 8) * CLUSTER_BYTES;
/** Sizes are given to guests in sectors. */
const SECTOR_BYTES = 512;

/** Clusters before the L1 table. */
const FIRST_L1_CLUSTER = 3;

/** Largest disk that we make: RLIMIT_FSIZE of a VM's QEMU leaves room for as much again, see `bounded-log.ts`. */
export const MAX_DISK_BYTES = 2 ** 40;

/** What a qcow2 file says about itself. */
export interface Qcow2Facts {
  readonly version: number;
  /** What the guest sees. */
  readonly virtualBytes: number;
}

/** Bytes that {@link parseHeader} needs. */
export const HEADER_PREFIX_BYTES = 32;

/** Reads the start of a file; undefined where it is no qcow2. */
export function parseHeader(prefix: Buffer): Qcow2Facts | undefined {
  if (prefix.length < HEADER_PREFIX_BYTES || prefix.readUInt32BE(0) !== MAGIC) return undefined;
  const version = prefix.readUInt32BE(4);
  const virtualBytes = Number(prefix.readBigUInt64BE(24));
  if (
    (version !== 2 && version !== 3) ||
    virtualBytes === 0 ||
    virtualBytes > Number.MAX_SAFE_INTEGER
  ) {
    return undefined;
  }
  return { version, virtualBytes };
}

/** A chunk of the new file and where it belongs; the rest is zeros. */
export interface FileChunk {
  readonly offset: number;
  readonly data: Buffer;
}

/** A fresh overlay's file: its chunks and its length. */
export function buildOverlay(o: { readonly backingPath: string; readonly virtualBytes: number }): {
  chunks: readonly FileChunk[];
  fileBytes: number;
} {
  const name = Buffer.from(o.backingPath, 'utf8');
  if (name.length > MAX_BACKING_NAME_BYTES) {
    throw new RangeError(
      `backing file name of ${name.length} bytes; at most ${MAX_BACKING_NAME_BYTES}`,
    );
  }
  if (
    o.virtualBytes % SECTOR_BYTES !== 0 ||
    o.virtualBytes <= 0 ||
    o.virtualBytes > MAX_DISK_BYTES
  ) {
    throw new RangeError(`virtual size of ${o.virtualBytes} bytes`);
  }
  const l1Entries = Math.ceil(o.virtualBytes / BYTES_PER_L1_ENTRY);
  const l1Clusters = Math.ceil((l1Entries * L1_ENTRY_BYTES) / CLUSTER_BYTES);
  const clusters = FIRST_L1_CLUSTER + l1Clusters;

  const refcountTable = Buffer.alloc(8);
  refcountTable.writeBigUInt64BE(BigInt(2 * CLUSTER_BYTES)); // its only block is cluster 2
  const refcounts = Buffer.alloc(clusters * 2);
  for (let cluster = 0; cluster < clusters; cluster += 1) refcounts.writeUInt16BE(1, cluster * 2);
  return {
    chunks: [
      { offset: 0, data: header(name, o.virtualBytes, l1Entries) },
      { offset: CLUSTER_BYTES, data: refcountTable },
      { offset: 2 * CLUSTER_BYTES, data: refcounts },
    ],
    fileBytes: clusters * CLUSTER_BYTES,
  };
}

function header(name: Buffer, virtualBytes: number, l1Entries: number): Buffer {
  const format = Buffer.from('qcow2');
  const extensions = Buffer.alloc(8 + 8 + 8); // format (padded to 8), then the end mark of zeros
  extensions.writeUInt32BE(BACKING_FORMAT_EXTENSION, 0);
  extensions.writeUInt32BE(format.length, 4);
  format.copy(extensions, 8);
  const fixed = Buffer.alloc(HEADER_BYTES);
  fixed.writeUInt32BE(MAGIC, 0);
  fixed.writeUInt32BE(VERSION, 4);
  fixed.writeBigUInt64BE(BigInt(HEADER_BYTES + extensions.length), 8); // backing_file_offset
  fixed.writeUInt32BE(name.length, 16);
  fixed.writeUInt32BE(CLUSTER_BITS, 20);
  fixed.writeBigUInt64BE(BigInt(virtualBytes), 24);
  fixed.writeUInt32BE(l1Entries, 36);
  fixed.writeBigUInt64BE(BigInt(FIRST_L1_CLUSTER * CLUSTER_BYTES), 40);
  fixed.writeBigUInt64BE(BigInt(CLUSTER_BYTES), 48); // refcount_table_offset
  fixed.writeUInt32BE(1, 56); // refcount_table_clusters
  fixed.writeUInt32BE(REFCOUNT_ORDER, 96);
  fixed.writeUInt32BE(HEADER_BYTES, 100);
  return Buffer.concat([fixed, extensions, name]);
}
