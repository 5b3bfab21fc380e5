/** Makes an image of what something else made: read, checked, merged, unpacked, published. */
import { createHash } from 'node:crypto';
import { statfs } from 'node:fs/promises';
import { ensureBootKit } from '../../../firmware/boot-kit.ts';
import { privateWords, readHostSettings } from '../../../firmware/host-apt.ts';
import { importRootfs, IMPORT_ROOTFS_STEPS } from '../../../firmware/imported-rootfs.ts';
import { ensureNodeKit } from '../../../firmware/node-kit.ts';
import { DEFAULT_SIZE_MIB } from '../../../firmware/recipe.ts';
import { lockedKit, type BuildContext } from '../build.ts';
import { publishImage, PUBLISH_STEPS, type ManifestFacts } from '../publish.ts';
import type { Image } from '../types.ts';
import { checkTree, prepareTree, treeSize } from './check-tree.ts';
import type { ContainerConfig } from './container-config.ts';
import type { ImageTree } from './image-tree.ts';
import type { Layer } from './layer.ts';
import { mergedTar } from './merge.ts';
import { openSource, type ImportFormat } from './open-source.ts';
import { IMPORT_LIMITS, scanLayers } from './scan.ts';

/** Steps of an import, in order. */
export const IMPORT_STEPS: readonly string[] = [
  ...['read', 'kernel', 'node'],
  ...IMPORT_ROOTFS_STEPS,
  ...PUBLISH_STEPS,
];

/** What was imported. */
export interface ImportedImage {
  readonly image: Image;
  readonly format: ImportFormat;
}

/** Imports and publishes under a name. The image's lock must be held. */
export async function importImage(
  name: string,
  path: string,
  context: BuildContext,
): Promise<ImportedImage> {
  const { workshop, mode, signal, reporter } = context;
  const { workDir, log } = workshop;
  const onStep = (step: string): void => reporter.begin(step);
  onStep('read');
  const { format, layers, config } = await openSource(path, workDir, signal);
  const onFraction = (fraction: number): void => reporter.advance(fraction);
  const { bavail, bsize } = await statfs(workDir);
  const limits = { ...IMPORT_LIMITS, freeBytes: bavail * bsize };
  const scan = await scanLayers(layers, { signal, limits, onRead: fractions(layers, onFraction) });
  checkTree(scan.tree, format);
  prepareTree(scan.tree, config?.workdir);
  const host = await readHostSettings();
  log.hide(privateWords(host));
  const kit = await lockedKit('kernel', ensureBootKit, context, host);
  const node = await lockedKit('node', ensureNodeKit, context, host);
  const facts = factsOf(name, scan.digests, config);
  const virtualBytes = diskBytes(scan.tree);
  const onRead = fractions(layers, onFraction);
  const withoutDevices = mode === 'unshare';
  const common = { kit, workDir, log, signal, onStep, virtualBytes };
  const { rawPath, packages } = await importRootfs({
    ...common,
    tar: mergedTar(scan.tree, layers, { signal, onRead, withoutDevices }),
    node,
    mode,
    hostname: name,
    environment: facts.environment,
    user: facts.user,
    workdir: facts.workdir,
  });
  const { imageDir } = workshop;
  const image = await publishImage({ ...common, imageDir, rawPath, facts: { ...facts, packages } });
  return { image, format };
}

/** As a container runtime has it, an image that names no user runs as root. */
function factsOf(
  name: string,
  digests: readonly string[],
  config: ContainerConfig | undefined,
): ManifestFacts {
  const { environment = {}, workdir, entrypoint, command } = config ?? {};
  const user = config === undefined ? 'agent' : (config.user ?? 'root');
  const identity = JSON.stringify([digests, environment, user, workdir, entrypoint, command]);
  return {
    name,
    origin: 'import',
    recipeHash: createHash('sha256').update(identity).digest('hex'),
    packages: [],
    environment,
    user,
    workdir,
    entrypoint,
    command,
    node: 'bundled',
  };
}

/** What our part (Node, kernel modules) takes, and room to work in. */
const SPARE_BYTES = 1024 ** 3;
/** mke2fs makes one inode for so many bytes (mke2fs.conf, inode_ratio). */
const BYTES_PER_INODE = 16_384;
const MIB = 1024 * 1024;

/** The default size, or what the files need with a quarter to spare where that is more. */
function diskBytes(tree: ImageTree): number {
  const { bytes, inodes } = treeSize(tree);
  const needed = Math.max(bytes, inodes * BYTES_PER_INODE) * 1.25 + SPARE_BYTES;
  return Math.max(DEFAULT_SIZE_MIB, Math.ceil(needed / MIB)) * MIB;
}

/** Turns counts of bytes into a fraction of all; undefined where no size is known. */
function fractions(
  layers: readonly Layer[],
  onFraction: (fraction: number) => void,
): ((bytes: number) => void) | undefined {
  const total = layers.reduce((sum, { sizeBytes = 0 }) => sum + sizeBytes, 0);
  if (total === 0) return undefined;
  let done = 0;
  return (bytes) => {
    done += bytes;
    onFraction(Math.min(1, done / total));
  };
}
