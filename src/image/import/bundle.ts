/** What holds a container image's parts by name: a directory, or a tar archive. */
import { createHash } from 'node:crypto';
import { createWriteStream } from 'node:fs';
import { stat } from 'node:fs/promises';
import path from 'node:path';
import { pipeline } from 'node:stream/promises';
import { decompressed } from './decompress.ts';
import { readRange, readWhole, type FileRange } from './file-range.ts';
import { DO_NOT_TRUST, importError, MAKE_ANEW } from './import-error.ts';
import { readTar } from './tar-reader.ts';

/** Parts by their names in the bundle. */
export interface Bundle {
  /** Names it in errors. */
  readonly label: string;
  /** Where a part is; undefined where there is none of that name. */
  readonly find: (name: string) => Promise<FileRange | undefined>;
}

/** Manifests and configurations have some KiB; containerd reads 8 MiB at most. */
const MAX_JSON_BYTES = 8 * 1024 * 1024;
/** docker save writes an old image's equal layers as links to the first. */
const MAX_LINKS = 8;
const MAX_MEMBERS = 100_000;

/** Names at the top of an archive that docker save, podman save or skopeo write. */
const BUNDLE_NAME =
  /^(oci-layout|index\.json|manifest\.json|repositories|blobs|[0-9a-f]{64}(\.json|\.tar)?)$/;

/** A directory as a bundle. */
export function directoryBundle(dir: string): Bundle {
  return {
    label: `directory ${dir}`,
    find: async (name) => {
      const file = path.join(dir, name);
      const status = await stat(file).catch(() => undefined);
      return status?.isFile() === true
        ? { path: file, start: 0, sizeBytes: status.size }
        : undefined;
    },
  };
}

/** An uncompressed tar archive as a bundle; undefined where it holds something else. */
export async function archiveBundle(
  range: FileRange,
  label: string,
  signal?: AbortSignal,
): Promise<Bundle | undefined> {
  const members = new Map<string, FileRange>();
  const links = new Map<string, string>();
  for await (const { header, offset } of readTar(readRange(range, signal), label)) {
    const name = path.posix.normalize(header.name).replace(/\/$/, '');
    if (name === '.') continue;
    if (!BUNDLE_NAME.test(name.split('/')[0] ?? '')) return undefined;
    if (members.size + links.size >= MAX_MEMBERS) {
      throw importError(`${label} has more than ${MAX_MEMBERS} members`, DO_NOT_TRUST);
    }
    if (header.kind === 'file') {
      members.set(name, {
        path: range.path,
        start: range.start + offset,
        sizeBytes: header.sizeBytes,
      });
    } else if (header.kind === 'symlink') {
      links.set(name, path.posix.join(path.posix.dirname(name), header.linkName));
    } else if (header.kind === 'link') {
      links.set(name, path.posix.normalize(header.linkName));
    }
  }
  return {
    label,
    find: (name) => {
      let target = path.posix.normalize(name);
      for (let hops = 0; hops < MAX_LINKS && !members.has(target); hops++) {
        target = links.get(target) ?? target;
      }
      return Promise.resolve(members.get(target));
    },
  };
}

/** Whether an archive's first member is one that only bundles have. Reads no further. */
export async function looksLikeBundle(
  source: AsyncIterable<Buffer>,
  label: string,
): Promise<boolean> {
  for await (const { header } of readTar(source, label)) {
    const name = path.posix.normalize(header.name).replace(/\/$/, '');
    if (name !== '.') return BUNDLE_NAME.test(name.split('/')[0] ?? '');
  }
  throw importError(`${label} is empty`, MAKE_ANEW);
}

/** Writes a compressed archive's contents to a file, where its parts can be got at in any order. */
export async function spool(
  range: FileRange,
  label: string,
  target: string,
  signal?: AbortSignal,
): Promise<FileRange> {
  await pipeline(decompressed(readRange(range, signal), label), createWriteStream(target));
  return { path: target, start: 0, sizeBytes: (await stat(target)).size };
}

/** A JSON object, or list, of a bundle. */
export async function readJson(bundle: Bundle, name: string, sha256?: string): Promise<unknown> {
  const range = await bundle.find(name);
  if (range === undefined) {
    throw importError(
      `${bundle.label} has no ${name}`,
      'Save the image again, whole: docker save IMAGE, or skopeo copy … oci-archive:FILE.',
    );
  }
  const text = await readWhole(range, `${bundle.label}: ${name}`, MAX_JSON_BYTES);
  if (sha256 !== undefined && createHash('sha256').update(text).digest('hex') !== sha256) {
    throw importError(`${bundle.label}: ${name} is not what its digest says`, MAKE_ANEW);
  }
  try {
    return JSON.parse(text.toString('utf8'));
  } catch (error) {
    throw importError(`${bundle.label}: ${name} is not JSON`, MAKE_ANEW, error);
  }
}
