/**
 * The files of an image while its layers are applied, without their contents. What later layers
 * replace or delete is gone before anything is written, and no path can lead out: parents are looked
 * up in this tree, link by link, never on the host.
 *
 * Rules of layers: OCI image-spec, layer.md ("Whiteouts", "Hardlinks").
 */
import { DO_NOT_TRUST, importError, showName } from './import-error.ts';
import type { TarHeader } from './tar-header.ts';

/** Where an entry's contents are: which layer, and which entry of it. */
export interface Origin {
  readonly layer: number;
  readonly ordinal: number;
}

/** Anything but a directory. Hard links share one. */
export interface Inode {
  readonly kind: 'file' | 'symlink' | 'character-device' | 'block-device' | 'fifo';
  readonly header: TarHeader;
  readonly origin: Origin;
  /** `e_machine` of an ELF file, where it was looked at. */
  machine?: number | undefined;
}

/** A directory. */
export interface Directory {
  readonly kind: 'directory';
  /** Undefined: no entry of its own, only of what is in it. */
  header: TarHeader | undefined;
  /** The last layer that has an entry for it. */
  layer: number;
  readonly depth: number;
  readonly children: Map<string, Node>;
}

type Node = Directory | { readonly kind: 'inode'; readonly layer: number; readonly inode: Inode };

/** What a path is. */
export type TreeItem = Directory | Inode;

/** Most symbolic links on the way to one file, as in Linux (MAXSYMLINKS). */
const MAX_LINKS = 40;
/** Deepest directory; Linux's PATH_MAX of 4096 bytes allows 2048. */
const MAX_DEPTH = 1024;
/** NAME_MAX of ext4. */
const MAX_NAME_BYTES = 255;
const WHITEOUT = '.wh.';
const OPAQUE = '.wh..wh..opq';
/** aufs's own notes, in old images. */
const AUFS_NOTE = '.wh..wh.';

/** The tree. Names are bytes as latin1. */
export class ImageTree {
  readonly root: Directory = directory(undefined, 0, 0);

  /**
   * Adds an entry of a layer, or deletes what it says is deleted. Returns the new inode, if any.
   * @param layered whether names that begin with `.wh.` are whiteouts
   * @throws ImageError it would leave the root, or cannot be
   */
  apply(header: TarHeader, origin: Origin, layered: boolean): Inode | undefined {
    const parts = split(header.name, header.name);
    const name = parts.pop();
    if (name === undefined) {
      if (header.kind !== 'directory') throw refuse(header.name, 'takes the place of the root');
      this.root.header = header;
      return undefined;
    }
    if (layered && name.startsWith(WHITEOUT)) {
      this.#whiteOut(parts, name, header.name, origin.layer);
      return undefined;
    }
    const parent = this.#descend(parts, header.name, origin.layer);
    if (header.kind === 'directory') {
      const present = parent.children.get(name);
      const target = present?.kind === 'directory' ? present : makeIn(parent, name, header.name);
      target.header = header;
      target.layer = origin.layer;
      return undefined;
    }
    if (header.kind === 'link') {
      const inode = this.#linkTarget(header);
      parent.children.set(name, { kind: 'inode', layer: origin.layer, inode });
      return undefined;
    }
    const inode: Inode = { kind: header.kind, header, origin };
    parent.children.set(name, { kind: 'inode', layer: origin.layer, inode });
    return inode;
  }

  /** What a path leads to, links followed inside the tree; undefined where there is nothing. */
  find(path: string): TreeItem | undefined {
    try {
      return this.#walk(split(path, path), path, { follow: true });
    } catch {
      return undefined;
    }
  }

  /** Makes an absolute path a directory, and each part of it; a link on the way is followed. */
  makeDirectory(path: string): void {
    this.#descend(split(path, path, true), path, 0);
  }

  /** Makes a name in the root a real directory, whatever it was. Returns it. */
  ownDirectory(name: string): Directory {
    const present = this.root.children.get(name);
    return present?.kind === 'directory' ? present : makeIn(this.root, name, name);
  }

  /** Every path below the root, parents first, with what it is. */
  *items(): Generator<{ readonly path: string; readonly item: TreeItem }> {
    const pending: { prefix: string; names: Iterator<[string, Node]> }[] = [
      { prefix: '', names: this.root.children.entries() },
    ];
    for (let level = pending.at(-1); level !== undefined; level = pending.at(-1)) {
      const next = level.names.next();
      if (next.done === true) {
        pending.pop();
        continue;
      }
      const [name, node] = next.value;
      const path = `${level.prefix}${name}`;
      yield { path, item: node.kind === 'inode' ? node.inode : node };
      if (node.kind === 'directory') {
        pending.push({ prefix: `${path}/`, names: node.children.entries() });
      }
    }
  }

  #whiteOut(parents: readonly string[], name: string, path: string, layer: number): void {
    const hidden = name.slice(WHITEOUT.length);
    if (name !== OPAQUE && name.startsWith(AUFS_NOTE)) return;
    if (hidden === '' || hidden === '.' || hidden === '..') {
      throw refuse(path, 'deletes something outside its directory');
    }
    const parent = this.#walk(parents, path, { follow: true });
    if (parent?.kind !== 'directory') return;
    if (name === OPAQUE) dropOlder(parent, layer);
    else {
      const node = parent.children.get(hidden);
      if (node !== undefined && !keepNewer(node, layer)) parent.children.delete(hidden);
    }
  }

  #linkTarget(header: TarHeader): Inode {
    const parts = split(header.linkName, header.name, true);
    const target = this.#walk(parts, header.name, { follow: false });
    if (target === undefined || target.kind === 'directory') {
      const what = target === undefined ? 'is not in the image' : 'is a directory';
      throw refuse(header.name, `is a hard link to ${showName(header.linkName)}, which ${what}`);
    }
    return target;
  }

  /** The directory at a path, made where it is missing. */
  #descend(parts: readonly string[], path: string, layer: number): Directory {
    const found = this.#walk(parts, path, { follow: true, make: layer });
    if (found?.kind === 'directory') return found;
    throw refuse(path, 'lies below something that is not a directory');
  }

  /**
   * Goes down from the root. Links in the middle are always followed, as a process inside the image
   * would; one that climbs above the root is refused, as only an attack has it.
   */
  #walk(
    parts: readonly string[],
    path: string,
    o: { follow: boolean; make?: number },
  ): TreeItem | undefined {
    const pending = [...parts].reverse();
    const above: Directory[] = [this.root];
    let links = 0;
    for (let name = pending.pop(); name !== undefined; name = pending.pop()) {
      const here = above.at(-1) ?? this.root;
      if (name === '..') {
        if (above.length === 1) throw refuse(path, 'leads out of the root by a symbolic link');
        above.pop();
        continue;
      }
      let node = here.children.get(name);
      if (node === undefined) {
        if (o.make === undefined) return undefined;
        node = makeIn(here, name, path);
        node.layer = o.make;
      }
      if (node.kind === 'directory') {
        above.push(node);
        continue;
      }
      const { inode } = node;
      const last = pending.length === 0;
      if (inode.kind !== 'symlink' || (last && !o.follow)) return last ? inode : undefined;
      if (++links > MAX_LINKS) throw refuse(path, 'leads through too many symbolic links');
      const target = inode.header.linkName;
      if (target.startsWith('/')) above.length = 1;
      pending.push(...components(target).reverse());
    }
    return above.at(-1);
  }
}

function directory(header: TarHeader | undefined, layer: number, depth: number): Directory {
  return { kind: 'directory', header, layer, depth, children: new Map() };
}

function makeIn(parent: Directory, name: string, path: string): Directory {
  if (parent.depth >= MAX_DEPTH) throw refuse(path, `lies deeper than ${MAX_DEPTH} directories`);
  const made = directory(undefined, parent.layer, parent.depth + 1);
  parent.children.set(name, made);
  return made;
}

/** Drops what earlier layers have put below a directory. */
function dropOlder(parent: Directory, layer: number): void {
  for (const [name, node] of parent.children) {
    if (!keepNewer(node, layer)) parent.children.delete(name);
  }
}

/** Whether something of this layer is left of a node. */
function keepNewer(node: Node, layer: number): boolean {
  if (node.kind === 'inode') return node.layer === layer;
  dropOlder(node, layer);
  return node.layer === layer || node.children.size > 0;
}

function components(path: string): string[] {
  return path.split('/').filter((part) => part !== '' && part !== '.');
}

/** Parts of a path in an archive. Absolute paths are allowed where archives have them by custom. */
function split(path: string, shown: string, absolute = false): string[] {
  const parts = components(path);
  if (!absolute && path.startsWith('/') && parts.length > 0) {
    throw importError(
      `${showName(shown)} is an absolute path`,
      'Make the archive with relative names: tar --create -C ROOTFS .',
    );
  }
  if (parts.includes('..')) throw refuse(shown, 'leads out of the root');
  if (path.includes('\0')) throw refuse(shown, 'has a NUL byte in its name');
  const long = parts.find((part) => part.length > MAX_NAME_BYTES);
  if (long !== undefined) throw refuse(shown, `has a name of ${long.length} bytes`);
  return parts;
}

function refuse(path: string, why: string): Error {
  return importError(`${showName(path)} ${why}`, DO_NOT_TRUST);
}
