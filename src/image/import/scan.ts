/** First reading of the layers: their headers make the tree, their bytes must be what they claim to be. */
import { createHash } from 'node:crypto';
import { HostError } from '../../errors.ts';
import { DO_NOT_TRUST, importError, showName } from './import-error.ts';
import { ImageTree } from './image-tree.ts';
import type { Layer } from './layer.ts';
import { readTar, type TarEntry } from './tar-reader.ts';

/** What the first reading finds. */
export interface Scan {
  readonly tree: ImageTree;
  /** SHA-256 of each layer's uncompressed bytes, hex. */
  readonly digests: readonly string[];
  /** Entries and bytes of all layers, also of what later ones replace: an upper bound. */
  readonly entries: number;
  readonly contentBytes: number;
}

/** Limits of one import. */
export interface ImportLimits {
  /** Of contents, all layers together. */
  readonly contentBytes: number;
  readonly entries: number;
  /** Free space on the host's disk. */
  readonly freeBytes: number;
}

/** As many inodes as ext4 gives 16 GiB, and far more contents than anybody boots. */
export const IMPORT_LIMITS = { contentBytes: 256 * 1024 ** 3, entries: 1_048_576 };

/**
 * Reads every layer once.
 * @throws ImageError a layer is broken, hostile, or not what its digest says
 */
export async function scanLayers(
  layers: readonly Layer[],
  o: {
    signal?: AbortSignal | undefined;
    onRead?: ((bytes: number) => void) | undefined;
    limits: ImportLimits;
  },
): Promise<Scan> {
  const tree = new ImageTree();
  const digests: string[] = [];
  let entries = 0;
  let contentBytes = 0;
  for (const [index, layer] of layers.entries()) {
    const hash = createHash('sha256');
    const bytes = hashed(layer.open(o), hash);
    for await (const entry of readTar(bytes, layer.label)) {
      entries += 1;
      contentBytes += entry.header.sizeBytes;
      checkLimits(layer, entry, { entries, contentBytes }, o.limits);
      const inode = tree.apply(
        entry.header,
        { layer: index, ordinal: entry.ordinal },
        layer.whiteouts,
      );
      if (inode?.kind === 'file' && isProgram(entry)) inode.machine = await elfMachine(entry.data);
    }
    const digest = hash.digest('hex');
    if (layer.sha256 !== undefined && layer.sha256 !== digest) {
      throw importError(
        `${layer.label} is not what the image says it is (SHA-256 ${digest} instead of ${layer.sha256})`,
        'Fetch or save the image again: it was damaged or changed.',
      );
    }
    digests.push(digest);
  }
  return { tree, digests, entries, contentBytes };
}

async function* hashed(
  source: AsyncIterable<Buffer>,
  hash: { update(data: Buffer): unknown },
): AsyncGenerator<Buffer> {
  for await (const chunk of source) {
    hash.update(chunk);
    yield chunk;
  }
}

function checkLimits(
  layer: Layer,
  entry: TarEntry,
  sums: { readonly entries: number; readonly contentBytes: number },
  limits: ImportLimits,
): void {
  const { name, sizeBytes } = entry.header;
  if (sums.contentBytes > limits.contentBytes) {
    throw importError(
      `${layer.label}: ${showName(name)} claims ${sizeBytes} bytes; ${limits.contentBytes} are allowed in all`,
      DO_NOT_TRUST,
    );
  }
  if (sums.entries > limits.entries) {
    throw importError(`${layer.label}: more than ${limits.entries} entries`, DO_NOT_TRUST);
  }
  if (sums.contentBytes > limits.freeBytes) {
    throw new HostError(
      'ERR_HOST_DISK_FULL',
      `${layer.label} has more than the ${limits.freeBytes} bytes that are free on the host's disk`,
      { hint: 'Free some space, or point state.dataDir to a larger disk.' },
    );
  }
}

function isProgram({ header }: TarEntry): boolean {
  return (header.mode & 0o111) !== 0 && header.sizeBytes >= ELF_HEADER_BYTES;
}

/** Up to and with `e_machine` (elf(5)). */
const ELF_HEADER_BYTES = 20;

/** `e_machine` of a little-endian ELF file; undefined for anything else. */
async function elfMachine(data: AsyncIterable<Buffer>): Promise<number | undefined> {
  let head = Buffer.alloc(0);
  for await (const chunk of data) {
    head = Buffer.concat([head, chunk]);
    if (head.length >= ELF_HEADER_BYTES) break;
  }
  const elf = head.toString('latin1', 0, 4) === '\x7fELF' && head[5] === 1;
  return elf ? head.readUInt16LE(18) : undefined;
}
