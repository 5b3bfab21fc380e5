/**
 * Reads a VM's disk as its guest sees it: a chain of qcow2 files, or a snapshot in the uppermost of them.
 * The files are named by whoever asks; what headers say of backing files does not count. Nothing is
 * written. Format: see `qcow2-header.ts`.
 */
import { closeSync, openSync, readSync } from 'node:fs';
import { constants, inflateRawSync } from 'node:zlib';
import { DiffError } from '../errors.ts';
import { parseHeader } from './qcow2-header.ts';
import { readSnapshots } from './qcow2-snapshots.ts';

const CLUSTER_BITS = 16;
export const CLUSTER_BYTES = 1 << CLUSTER_BITS;
const HEADER_BYTES = 112;
/** Incompatible features that do not change what is read: dirty refcounts. */
const KNOWN_FEATURES = 1n;
const ENTRIES_PER_L2 = CLUSTER_BYTES / 8;
/** Where a table is: bits 9 to 55 of an entry. */
const OFFSET_MASK = 0x00ff_ffff_ffff_fe00n;
/** As {@link OFFSET_MASK}, of the upper half. */
const OFFSET_HIGH_MASK = 0x00ff_ffff;
/** Of the upper half of an entry. */
const COMPRESSED = 0x4000_0000;
/** Of the lower half. */
const ALL_ZEROS = 1;
/** Of an entry of a compressed cluster, the upper half: so many bits of where it is, its sectors above. */
const COMPRESSED_HIGH_BITS = 62 - (CLUSTER_BITS - 8) - 32;
const SECTOR_BYTES = 512;
/** A cluster that is all zeros: at the begin of a file is its header. */
const ZERO = 0;
/** A cluster that the file does not have. */
const BELOW = -1;
const NO_PLACES = new Float64Array(0);
/** As large as QEMU allows. */
const MAX_L1_BYTES = 32 * 2 ** 20;
/** Clusters kept in memory: 32 MiB. */
const MAX_CACHED = 512;
const ZEROS = Buffer.alloc(CLUSTER_BYTES);
/** Places are offsets in files, each file in a range of its own. */
const BYTES_PER_FILE = 2 ** 44;

/** One file of a chain. */
export interface DiskLayer {
  readonly path: string;
  /** Name of a snapshot in it; undefined: as it is now. */
  readonly snapshot?: string | undefined;
}

interface OpenFile {
  readonly fd: number;
  readonly path: string;
  /** By its number its clusters are told from those of others. */
  readonly index: number;
}

/**
 * Files that are open, each once, and what was read of them: two disks that stand on the same file share
 * both.
 */
export class DiskFiles implements Disposable {
  readonly #open = new Map<string, OpenFile>();
  readonly #clusters = new Map<number, Buffer>();

  /** @throws the system's own error */
  open(path: string): OpenFile {
    const known = this.#open.get(path);
    if (known !== undefined) return known;
    const fd = openSync(path, 'r');
    const file = { fd, path, index: this.#open.size };
    this.#open.set(path, file);
    return file;
  }

  /** The cluster at this place, made where it is not in memory. */
  cached(place: number, make: () => Buffer): Buffer {
    const known = this.#clusters.get(place);
    if (known !== undefined) return known;
    const [oldest] = this.#clusters.keys();
    if (this.#clusters.size >= MAX_CACHED && oldest !== undefined) this.#clusters.delete(oldest);
    const made = make();
    this.#clusters.set(place, made);
    return made;
  }

  [Symbol.dispose](): void {
    for (const { fd } of this.#open.values()) closeSync(fd);
    this.#open.clear();
    this.#clusters.clear();
  }
}

/** A disk, to be read. Synchronous: what it reads is mostly in the host's memory. */
export class DiskReader {
  readonly sizeBytes: number;
  readonly #files: DiskFiles;
  readonly #tables: readonly Table[];

  private constructor(files: DiskFiles, tables: readonly Table[]) {
    this.#files = files;
    this.#tables = tables;
    this.sizeBytes = tables[0]?.sizeBytes ?? 0;
  }

  /**
   * @param layers the uppermost first
   * @throws DiffError a file that is no qcow2 of ours; the system's own error
   */
  static async open(files: DiskFiles, layers: readonly DiskLayer[]): Promise<DiskReader> {
    const tables: Table[] = [];
    for (const layer of layers) tables.push(await Table.open(files, layer));
    return new DiskReader(files, tables);
  }

  /** Where a byte is: what is in the same place is the same. 0: a zero. */
  placeOf(offset: number): number {
    const place = this.#find(Math.floor(offset / CLUSTER_BYTES)).place;
    return place === ZERO ? ZERO : place + (offset % CLUSTER_BYTES);
  }

  /** Bytes that lie in one cluster. The buffer is shared: not to be written to. */
  read(offset: number, length: number): Buffer {
    const { table, place } = this.#find(Math.floor(offset / CLUSTER_BYTES));
    const bytes =
      table === undefined || place === ZERO
        ? ZEROS
        : this.#files.cached(place, () => table.read(place));
    const from = offset % CLUSTER_BYTES;
    return bytes.subarray(from, from + length);
  }

  /** The file that has a cluster, and where. */
  #find(cluster: number): { table?: Table; place: number } {
    for (const table of this.#tables) {
      if (cluster * CLUSTER_BYTES >= table.sizeBytes) break; // a longer disk over it: zeros
      const place = table.placeOf(cluster);
      if (place !== BELOW) return { table, place };
    }
    return { place: ZERO };
  }
}

/** The mapping of one qcow2 file. */
class Table {
  readonly file: OpenFile;
  readonly sizeBytes: number;
  readonly #l1: Buffer;
  readonly #l2 = new Map<number, Float64Array>();
  /**
   * Compressed clusters, which begin anywhere: their places are negative, one for each cluster of the disk.
   * Only what `qemu-img convert` made has some, and that has no snapshots, which may have others there.
   */
  readonly #packed = new Map<number, { offset: number; sectors: number }>();

  private constructor(file: OpenFile, sizeBytes: number, l1: Buffer) {
    this.file = file;
    this.sizeBytes = sizeBytes;
    this.#l1 = l1;
  }

  static async open(files: DiskFiles, { path, snapshot }: DiskLayer): Promise<Table> {
    const file = files.open(path);
    const header = readAt(file, 0, HEADER_BYTES);
    const facts = parseHeader(header);
    if (facts === undefined) throw unreadable(path, 'it is no qcow2');
    const features = facts.version === 3 ? header.readBigUInt64BE(72) : 0n;
    if (header.readUInt32BE(32) !== 0) throw unreadable(path, 'it is encrypted');
    if (header.readUInt32BE(20) !== CLUSTER_BITS || (features & ~KNOWN_FEATURES) !== 0n)
      throw unreadable(path, 'it is a qcow2 of a kind that qmp-agent does not make');
    let l1 = { offset: Number(header.readBigUInt64BE(40)), entries: header.readUInt32BE(36) };
    if (snapshot !== undefined) {
      const found = (await readSnapshots(path)).find(({ name }) => name === snapshot);
      if (found === undefined) throw unreadable(path, `it has no snapshot ${snapshot} any more`);
      l1 = { offset: found.l1Offset, entries: found.l1Entries };
    }
    if (l1.entries * 8 > MAX_L1_BYTES) throw unreadable(path, 'its tables are too large');
    return new Table(file, facts.virtualBytes, readAt(file, l1.offset, l1.entries * 8));
  }

  /** Where a cluster is; {@link BELOW}: not here, but maybe in the next file. */
  placeOf(cluster: number): number {
    const index = Math.floor(cluster / ENTRIES_PER_L2);
    if ((index + 1) * 8 > this.#l1.length) return BELOW;
    let places = this.#l2.get(index);
    if (places === undefined) {
      const offset = Number(this.#l1.readBigUInt64BE(index * 8) & OFFSET_MASK);
      const read = () => readAt(this.file, offset, CLUSTER_BYTES);
      places = offset === 0 ? NO_PLACES : this.#placesIn(read(), index * ENTRIES_PER_L2);
      this.#l2.set(index, places);
    }
    return places[cluster % ENTRIES_PER_L2] ?? BELOW;
  }

  /** @param first of the clusters that the table tells of */
  #placesIn(table: Buffer, first: number): Float64Array {
    const places = new Float64Array(ENTRIES_PER_L2).fill(BELOW);
    const base = this.file.index * BYTES_PER_FILE;
    for (let index = 0; index < ENTRIES_PER_L2; index += 1) {
      const high = table.readUInt32BE(index * 8);
      const low = table.readUInt32BE(index * 8 + 4);
      if ((high & COMPRESSED) !== 0) {
        const offset = (high & ((1 << COMPRESSED_HIGH_BITS) - 1)) * 2 ** 32 + low;
        const sectors = ((high & (COMPRESSED - 1)) >>> COMPRESSED_HIGH_BITS) + 1;
        const place = -(base + BYTES_PER_FILE + (first + index) * CLUSTER_BYTES);
        this.#packed.set(place, { offset, sectors });
        places[index] = place;
      } else if ((low & ALL_ZEROS) !== 0) {
        places[index] = ZERO;
      } else {
        const at = (high & OFFSET_HIGH_MASK) * 2 ** 32 + (low >>> 9) * 2 ** 9;
        if (at >= BYTES_PER_FILE) throw unreadable(this.file.path, 'its tables point beyond it');
        places[index] = at === 0 ? BELOW : base + at;
      }
    }
    return places;
  }

  read(place: number): Buffer {
    const packed = this.#packed.get(place);
    if (packed === undefined)
      return readAt(this.file, place - this.file.index * BYTES_PER_FILE, CLUSTER_BYTES);
    const { offset, sectors } = packed;
    const length = sectors * SECTOR_BYTES - (offset % SECTOR_BYTES);
    const options = { finishFlush: constants.Z_SYNC_FLUSH, maxOutputLength: CLUSTER_BYTES };
    const bytes = Buffer.alloc(CLUSTER_BYTES);
    try {
      inflateRawSync(readAt(this.file, offset, length), options).copy(bytes);
    } catch {
      throw unreadable(this.file.path, 'a compressed cluster is damaged');
    }
    return bytes;
  }
}

/** What is past the end of the file is zeros. */
function readAt(file: OpenFile, offset: number, length: number): Buffer {
  const bytes = Buffer.alloc(length);
  for (let done = 0; done < length;) {
    const count = readSync(file.fd, bytes, done, length - done, offset + done);
    if (count === 0) break;
    done += count;
  }
  return bytes;
}

function unreadable(path: string, why: string): DiffError {
  return new DiffError('ERR_DIFF_FILE_SYSTEM', `the disk ${path} cannot be compared: ${why}`, {
    hint: 'Compare VMs, templates and images that qmp-agent has made.',
  });
}
