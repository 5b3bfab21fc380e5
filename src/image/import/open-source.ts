/** Finds out what a source is, and opens it. */
import { readdir, stat } from 'node:fs/promises';
import path from 'node:path';
import { archiveBundle, directoryBundle, looksLikeBundle, spool, type Bundle } from './bundle.ts';
import type { ContainerConfig } from './container-config.ts';
import { compressionOf, decompressed } from './decompress.ts';
import { openDockerArchive } from './docker-archive.ts';
import { readRange, type FileRange } from './file-range.ts';
import { importError } from './import-error.ts';
import { directoryLayer, fileLayer, type Layer } from './layer.ts';
import { openOciLayout } from './oci-layout.ts';

/** What a source turned out to be. */
export type ImportFormat = 'directory' | 'tarball' | 'oci' | 'docker';

/** An opened source. */
export interface ImportSource {
  readonly format: ImportFormat;
  readonly layers: readonly Layer[];
  /** Of a container image. */
  readonly config: ContainerConfig | undefined;
}

const WHAT_TO_GIVE =
  'Give a directory, a tarball of a root filesystem, an OCI layout, or what docker save writes.';

/**
 * Opens a source.
 * @param workDir for what has to be unpacked first
 * @throws ImageError it is none of those that can be imported
 */
export async function openSource(
  source: string,
  workDir: string,
  signal?: AbortSignal,
): Promise<ImportSource> {
  const file = path.resolve(source);
  const status = await stat(file).catch((cause: unknown) => {
    throw importError(`cannot read ${file}: ${(cause as Error).message}`, WHAT_TO_GIVE, cause);
  });
  if (status.isDirectory()) return openDirectory(file, signal);
  if (status.isFile()) {
    return openArchive({ path: file, start: 0, sizeBytes: status.size }, workDir, signal);
  }
  throw importError(`${file} is neither a file nor a directory`, WHAT_TO_GIVE);
}

async function openDirectory(dir: string, signal?: AbortSignal): Promise<ImportSource> {
  const names = await readdir(dir).catch((cause: unknown) => {
    throw importError(`cannot read ${dir}: ${(cause as Error).message}`, WHAT_TO_GIVE, cause);
  });
  if (names.includes('usr') || names.includes('bin')) {
    return { format: 'directory', layers: [directoryLayer(dir)], config: undefined };
  }
  const image = await openBundle(directoryBundle(dir), signal);
  return image ?? { format: 'directory', layers: [directoryLayer(dir)], config: undefined };
}

async function openArchive(
  range: FileRange,
  workDir: string,
  signal?: AbortSignal,
): Promise<ImportSource> {
  const label = `archive ${path.basename(range.path)}`;
  if (range.sizeBytes === 0) throw importError(`${label} is empty`, WHAT_TO_GIVE);
  let head = Buffer.alloc(0);
  for await (const chunk of readRange({ ...range, sizeBytes: Math.min(range.sizeBytes, 512) })) {
    head = Buffer.concat([head, chunk]);
  }
  if (await looksLikeBundle(decompressed(readRange(range, signal), label), label)) {
    const plain =
      compressionOf(head) === 'none'
        ? range
        : await spool(range, label, path.join(workDir, 'archive.tar'), signal);
    const bundle = await archiveBundle(plain, label, signal);
    const image = bundle === undefined ? undefined : await openBundle(bundle, signal);
    if (image !== undefined) return image;
  }
  const layer = fileLayer(range, { label, whiteouts: false });
  return { format: 'tarball', layers: [layer], config: undefined };
}

/** What docker 25 and later writes is both; the OCI part has digests of all. */
async function openBundle(
  bundle: Bundle,
  signal: AbortSignal | undefined,
): Promise<ImportSource | undefined> {
  if ((await bundle.find('oci-layout')) !== undefined) {
    return { format: 'oci', ...(await openOciLayout(bundle, signal)) };
  }
  if ((await bundle.find('manifest.json')) !== undefined) {
    return { format: 'docker', ...(await openDockerArchive(bundle)) };
  }
  return undefined;
}
