/** What is different between two states of one file system: files that came, went, or were changed. */
import { setImmediate as breathe } from 'node:timers/promises';
import { damaged, unsupported } from './ext4/damage.ts';
import { deviceOf, type Extent, type FileType, type Inode } from './ext4/inode.ts';
import { ROOT_INODE, type Ext4Volume } from './ext4/volume.ts';

/** How long it works before others in this process have their turn, ms. */
const SLICE_MS = 8;
/** Blocks or names between two looks at the clock. */
const STEPS_PER_LOOK = 64;
/** Names in one file system; an image has some 50 000. */
const MAX_NAMES = 2_000_000;
/** Longest path that is followed. A kernel knows paths of 4 KiB, and makes deeper ones by `cd`. */
const MAX_PATH_BYTES = 64 * 1024;
/** All paths together that are told of or still to be gone into; names of directories count again with each file. */
const MAX_PATHS_BYTES = 64 * 2 ** 20;
/** The largest block. */
const ZEROS = Buffer.alloc(64 * 1024);

/** What a file is, at one of the two. */
export interface FileFacts {
  readonly type: FileType;
  /** Permissions, with setuid, setgid and sticky. */
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly sizeBytes: number;
  /** ISO 8601, the guest's clock. */
  readonly mtime: string;
  /** Of a symlink. */
  readonly target?: string | undefined;
}

/** What about a file has changed. */
export type FileAspect =
  'type' | 'content' | 'size' | 'mode' | 'owner' | 'mtime' | 'target' | 'device' | 'attributes';

/** One file that is not the same. */
export interface FileChange {
  readonly kind: 'added' | 'changed' | 'deleted';
  /** From the root directory on. Bytes that are no UTF-8 are U+FFFD; then {@link pathBase64} has all. */
  readonly path: string;
  readonly pathBase64?: string | undefined;
  /** Of one that has changed: what about it. */
  readonly changes?: readonly FileAspect[] | undefined;
  /** Undefined where it was not there. */
  readonly before?: FileFacts | undefined;
  /** Undefined where it is not there any more. */
  readonly after?: FileFacts | undefined;
}

/**
 * Compares two file systems. All names are looked at; of files that may differ, all bytes, unless they
 * are the same ones on the disk.
 * @returns in the order of the paths' bytes
 * @throws DiffError; the signal's reason
 */
export async function compareVolumes(
  before: Ext4Volume,
  after: Ext4Volume,
  signal?: AbortSignal,
): Promise<FileChange[]> {
  return new Comparison(before, after, signal).run();
}

/** A path, and what it stands for at both; undefined: nothing. */
interface Pair {
  readonly path: string;
  readonly before: Inode | undefined;
  readonly after: Inode | undefined;
}

class Comparison {
  readonly #before: Ext4Volume;
  readonly #after: Ext4Volume;
  readonly #pace: Pace;
  #pathsBytes = 0;
  readonly #found: { path: string; change: FileChange }[] = [];
  /** Directories that were gone into: a second name of one would have no end. */
  readonly #seen = { before: new Set<number>(), after: new Set<number>() };

  constructor(before: Ext4Volume, after: Ext4Volume, signal: AbortSignal | undefined) {
    this.#before = before;
    this.#after = after;
    this.#pace = new Pace(signal);
  }

  async run(): Promise<FileChange[]> {
    const root = {
      path: '',
      before: this.#before.inode(ROOT_INODE),
      after: this.#after.inode(ROOT_INODE),
    };
    await this.#note(root);
    const left: Pair[] = [root];
    let names = 0;
    for (let pair = left.pop(); pair !== undefined; pair = left.pop()) {
      for await (const child of this.#children(pair)) {
        names += 1;
        if (names > MAX_NAMES) throw damaged('it has too many files');
        await this.#note(child);
        const { before, after } = child;
        if (before?.type !== 'directory' && after?.type !== 'directory') continue;
        this.#keep(child.path);
        left.push(child);
      }
    }
    this.#found.sort((one, other) => (one.path < other.path ? -1 : 1)); // bytes: the paths are latin1
    return this.#found.map(({ change }) => change);
  }

  /** @throws DiffError all that is kept would be too much: a path is as long as a guest likes */
  #keep(path: string): void {
    this.#pathsBytes += path.length;
    if (this.#pathsBytes > MAX_PATHS_BYTES) throw unsupported('more has changed than can be told');
  }

  async *#children({ path, before, after }: Pair): AsyncGenerator<Pair> {
    if (path.length > MAX_PATH_BYTES) throw damaged('its directories are too deep');
    const was = directory(before, this.#seen.before);
    const is = directory(after, this.#seen.after);
    const namesBefore = was && this.#before.names(was);
    const isSame = was !== undefined && is !== undefined && (await this.#hasSameContent(was, is));
    const namesAfter = isSame ? namesBefore : is && this.#after.names(is);
    for (const [name, number] of namesBefore ?? []) {
      if (this.#pace.isDue()) await this.#pace.pause();
      const now = namesAfter?.get(name);
      const one = this.#before.inode(number);
      const other = now === undefined ? undefined : this.#after.inode(now, one);
      yield { path: `${path}/${name}`, before: one, after: other };
    }
    for (const [name, number] of isSame ? [] : (namesAfter ?? [])) {
      if (namesBefore?.has(name) === true) continue;
      if (this.#pace.isDue()) await this.#pace.pause();
      yield { path: `${path}/${name}`, before: undefined, after: this.#after.inode(number) };
    }
  }

  async #note({ path, before, after }: Pair): Promise<void> {
    const changes = before && after && (await this.#changesOf(before, after));
    if (changes?.length === 0) return;
    this.#keep(path);
    const bytes = Buffer.from(path === '' ? '/' : path, 'latin1');
    const text = bytes.toString('utf8');
    const isText = Buffer.from(text, 'utf8').equals(bytes);
    const kind = before === undefined ? 'added' : after === undefined ? 'deleted' : 'changed';
    const change: FileChange = {
      ...{ kind, path: text },
      ...(isText ? {} : { pathBase64: bytes.toString('base64') }),
      ...(changes === undefined ? {} : { changes }),
      ...(before === undefined ? {} : { before: factsOf(before, this.#before) }),
      ...(after === undefined ? {} : { after: factsOf(after, this.#after) }),
    };
    this.#found.push({ path: path === '' ? '/' : path, change });
  }

  async #changesOf(before: Inode, after: Inode): Promise<FileAspect[]> {
    const changes: FileAspect[] = [];
    const { type } = after;
    const isSameInode = before.place === after.place;
    if (before.type !== type) changes.push('type');
    const isFile = type === 'file' && before.type === 'file';
    if (isFile && before.sizeBytes !== after.sizeBytes) changes.push('content', 'size');
    else if (isFile && !(await this.#hasSameContent(before, after))) changes.push('content');
    if (isSameInode) return changes;
    if (before.mode !== after.mode) changes.push('mode');
    if (before.uid !== after.uid || before.gid !== after.gid) changes.push('owner');
    if (before.mtime !== after.mtime || before.mtimeNs !== after.mtimeNs) changes.push('mtime');
    if (before.type === type && type === 'symlink') {
      if (this.#before.target(before) !== this.#after.target(after)) changes.push('target');
    }
    if (before.type === type && type.endsWith(' device')) {
      if (deviceOf(before) !== deviceOf(after)) changes.push('device');
    }
    if (this.#before.attributes(before) !== this.#after.attributes(after))
      changes.push('attributes');
    return changes;
  }

  /** Whether two files of one size hold the same bytes. */
  async #hasSameContent(before: Inode, after: Inode): Promise<boolean> {
    if (before.sizeBytes !== after.sizeBytes) return false;
    const { blockBytes } = this.#before;
    if (blockBytes !== this.#after.blockBytes) throw damaged('its blocks have another size');
    const end = Math.ceil(before.sizeBytes / blockBytes);
    const one = new Blocks(this.#before.extents(before));
    const other = new Blocks(this.#after.extents(after));
    for (let at = 0; at < end;) {
      const run = Math.min(end - at, one.runAt(at), other.runAt(at));
      const [from, to] = [one.blockAt(at), other.blockAt(at)];
      if (from !== undefined || to !== undefined) {
        for (let index = 0; index < run; index += 1) {
          if (this.#pace.isDue()) await this.#pace.pause();
          const length = Math.min(blockBytes, before.sizeBytes - (at + index) * blockBytes);
          if (!this.#isSameBlock(from && from + index, to && to + index, length)) return false;
        }
      }
      at += run;
    }
    return true;
  }

  #isSameBlock(from: number | undefined, to: number | undefined, length: number): boolean {
    const placeBefore = from === undefined ? 0 : this.#before.placeOf(from);
    const placeAfter = to === undefined ? 0 : this.#after.placeOf(to);
    if (placeBefore === placeAfter) return true;
    const one = from === undefined ? ZEROS : this.#before.block(from);
    const other = to === undefined ? ZEROS : this.#after.block(to);
    return one.subarray(0, length).equals(other.subarray(0, length));
  }
}

/** Blocks of a file, looked up in the order of the file. */
class Blocks {
  readonly #extents: readonly Extent[];
  #index = 0;

  constructor(extents: readonly Extent[]) {
    this.#extents = extents;
  }

  /** How many blocks from here on are in a row, on the disk or in a hole. */
  runAt(at: number): number {
    const extent = this.#at(at);
    if (extent === undefined) return Number.MAX_SAFE_INTEGER;
    const { logical, count } = extent;
    return at < logical ? logical - at : logical + count - at;
  }

  /** Undefined: a hole. */
  blockAt(at: number): number | undefined {
    const extent = this.#at(at);
    return extent === undefined || at < extent.logical
      ? undefined
      : extent.physical + at - extent.logical;
  }

  /** The extent that holds this block, or the next one. */
  #at(at: number): Extent | undefined {
    for (;;) {
      const extent = this.#extents[this.#index];
      if (extent === undefined || at < extent.logical + extent.count) return extent;
      this.#index += 1;
    }
  }
}

/** Lets others in this process have their turn, and looks whether it is to go on. */
class Pace {
  readonly #signal: AbortSignal | undefined;
  #steps = 0;
  #until = performance.now() + SLICE_MS;

  constructor(signal: AbortSignal | undefined) {
    this.#signal = signal;
  }

  /** Once in a while: time for {@link pause}. */
  isDue(): boolean {
    this.#steps += 1;
    return this.#steps % STEPS_PER_LOOK === 0 && performance.now() >= this.#until;
  }

  async pause(): Promise<void> {
    await breathe();
    this.#signal?.throwIfAborted();
    this.#until = performance.now() + SLICE_MS;
  }
}

/** An inode that is a directory, which no other name has led to. @throws DiffError one has */
function directory(inode: Inode | undefined, seen: Set<number>): Inode | undefined {
  if (inode?.type !== 'directory') return undefined;
  if (seen.has(inode.number)) throw damaged(`directory ${inode.number} has two names`);
  seen.add(inode.number);
  return inode;
}

function factsOf(inode: Inode, volume: Ext4Volume): FileFacts {
  const { type, mode, uid, gid, sizeBytes } = inode;
  const mtime = new Date(inode.mtime * 1000 + Math.floor(inode.mtimeNs / 1e6)).toISOString();
  const facts = { type, mode, uid, gid, sizeBytes, mtime };
  if (type !== 'symlink') return facts;
  return { ...facts, target: Buffer.from(volume.target(inode), 'latin1').toString('utf8') };
}
