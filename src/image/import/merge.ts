/**
 * Second reading of the layers: writes the tree as one tar archive, in which every path is plain. No
 * parent is a link, no name climbs, directories come first, each file once and then its hard links;
 * so whatever unpacks it cannot be led astray.
 */
import type { Inode, ImageTree } from './image-tree.ts';
import { importError, showName } from './import-error.ts';
import type { Layer } from './layer.ts';
import { encodeHeader, padding, TAR_END, type TarHeader } from './tar-header.ts';
import { readTar } from './tar-reader.ts';

/** How the tree is written. */
export interface MergeOptions {
  readonly signal?: AbortSignal | undefined;
  readonly onRead?: ((bytes: number) => void) | undefined;
  /** Leave device nodes out: user namespaces cannot make them. */
  readonly withoutDevices: boolean;
}

/** A directory that no layer has an entry for. */
const IMPLIED = { kind: 'directory', mode: 0o755, uid: 0, gid: 0, mtimeS: 0 } as const;
const NOTHING = { sizeBytes: 0, linkName: '', device: [0, 0], xattrs: new Map() } as const;

/** The tree as a tar archive, without its root. */
export async function* mergedTar(
  tree: ImageTree,
  layers: readonly Layer[],
  o: MergeOptions,
): AsyncGenerator<Buffer> {
  const names = new Map<Inode, string[]>();
  for (const { path, item } of tree.items()) {
    if (item.kind !== 'directory') {
      const known = names.get(item);
      if (known === undefined) names.set(item, [path]);
      else known.push(path);
      continue;
    }
    yield encodeHeader({ ...NOTHING, ...(item.header ?? IMPLIED), name: `${path}/`, ...PLAIN });
  }
  for (const [index, layer] of layers.entries()) {
    yield* contents(layer, index, names, o);
  }
  for (const [inode, paths] of names) yield* links(inode, paths, o);
  yield TAR_END;
}

const PLAIN = { kind: 'directory', sizeBytes: 0, linkName: '' } as const;

/** Files of a layer that the tree still has. */
async function* contents(
  layer: Layer,
  index: number,
  names: ReadonlyMap<Inode, readonly string[]>,
  o: MergeOptions,
): AsyncGenerator<Buffer> {
  const wanted = new Map<number, { header: TarHeader; path: string }>();
  for (const [{ kind, header, origin }, [path = '']] of names) {
    if (kind === 'file' && origin.layer === index) wanted.set(origin.ordinal, { header, path });
  }
  if (wanted.size === 0) return;
  for await (const entry of readTar(layer.open(o), layer.label)) {
    const file = wanted.get(entry.ordinal);
    if (file === undefined) continue;
    const { name, sizeBytes } = entry.header;
    if (name !== file.header.name || sizeBytes !== file.header.sizeBytes) {
      throw importError(
        `${layer.label} changed while it was read, at ${showName(name)}`,
        'See that nothing writes to it, and import it again.',
      );
    }
    wanted.delete(entry.ordinal);
    yield encodeHeader({ ...file.header, name: file.path });
    yield* entry.data;
    yield padding(sizeBytes);
    if (wanted.size === 0) return;
  }
}

/** Whatever has no contents, and further names of what was written. */
function* links(inode: Inode, paths: readonly string[], o: MergeOptions): Generator<Buffer> {
  const { kind, header } = inode;
  if (o.withoutDevices && (kind === 'character-device' || kind === 'block-device')) return;
  const [first = '', ...others] = paths;
  if (kind !== 'file') yield encodeHeader({ ...header, name: first });
  for (const name of others) {
    yield encodeHeader({ ...header, ...NOTHING, kind: 'link', name, linkName: first });
  }
}
