/** Reading and checking `manifest.json`. Plain checks: what is on disk may be anything. */
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { lstat, readFile } from 'node:fs/promises';
import path from 'node:path';
import { pipeline } from 'node:stream/promises';
import { ImageError, StateDirError } from '../errors.ts';
import { IMAGE_SCHEMA, type Image, type ImageFile, type ImageManifest } from './types.ts';

/** File names in an image's directory. */
export const MANIFEST = 'manifest.json';
export const ROOTFS = 'rootfs.qcow2';
export const BOOT_CPIO = 'boot.cpio';

/** SHA-256 and size of a file. */
export async function describeFile(file: string, signal?: AbortSignal): Promise<ImageFile> {
  const hash = createHash('sha256');
  let sizeBytes = 0;
  const source = createReadStream(file, { highWaterMark: 1024 * 1024 });
  await pipeline(
    source,
    async (chunks: AsyncIterable<Buffer>) => {
      for await (const chunk of chunks) {
        sizeBytes += chunk.length;
        hash.update(chunk);
      }
    },
    signal === undefined ? {} : { signal },
  );
  return { sizeBytes, sha256: hash.digest('hex') };
}

/** An image that cannot be used, and what to do about it. */
export function corrupt(name: string, why: string, cause?: unknown): ImageError {
  return new ImageError('ERR_IMAGE_CORRUPT', `image ${name}: ${why}`, {
    hint: `Build or import it anew: qmp-agent image build --force ${name}`,
    cause,
  });
}

/**
 * The image in `dir`: manifest read and its files' sizes compared.
 * @throws {ImageError} ERR_IMAGE_CORRUPT
 * @throws {StateDirError} written by a later version of this program
 */
export async function openImage(name: string, dir: string): Promise<Image> {
  const manifest = await readManifest(name, dir);
  for (const [fileName, file] of Object.entries(manifest.files)) {
    const status = await lstat(path.join(dir, fileName)).catch(() => undefined);
    if (status?.isFile() !== true) throw corrupt(name, `${fileName} is missing`);
    if (status.size !== file.sizeBytes) {
      throw corrupt(name, `${fileName} has ${status.size} bytes instead of ${file.sizeBytes}`);
    }
  }
  const kernel = ['vmlinux', 'vmlinuz'].find((file) => file in manifest.files);
  if (kernel === undefined || !(ROOTFS in manifest.files)) {
    throw corrupt(name, 'the manifest names no kernel or no root file system');
  }
  return {
    name,
    id: manifest.id,
    dir,
    rootfsPath: path.join(dir, ROOTFS),
    rootfsVirtualBytes: manifest.virtualBytes,
    kernelPath: path.join(dir, kernel),
    manifest,
  };
}

async function readManifest(name: string, dir: string): Promise<ImageManifest> {
  let parsed: unknown;
  try {
    parsed = JSON.parse(await readFile(path.join(dir, MANIFEST), 'utf8'));
  } catch (error) {
    throw corrupt(name, 'its manifest cannot be read', error);
  }
  const manifest = parsed as Partial<ImageManifest> | null;
  const schema = manifest?.schema;
  if (typeof schema === 'number' && schema > IMAGE_SCHEMA) {
    throw new StateDirError(
      `image ${name} was made by a later version of qmp-agent (schema ${schema})`,
      {
        path: dir,
        hint: 'Update qmp-agent, or build the image anew under another name.',
      },
    );
  }
  const sound =
    manifest !== null &&
    schema === IMAGE_SCHEMA &&
    typeof manifest.id === 'string' &&
    typeof manifest.virtualBytes === 'number' &&
    typeof manifest.kernelVersion === 'string' &&
    typeof manifest.recipeHash === 'string' &&
    typeof manifest.files === 'object' &&
    Object.entries(manifest.files).every(
      ([file, { sizeBytes, sha256 }]) =>
        !file.includes('/') && typeof sizeBytes === 'number' && typeof sha256 === 'string',
    );
  if (!sound) throw corrupt(name, 'its manifest is not one');
  return manifest as ImageManifest;
}

/**
 * Reads every byte of the image's files and compares checksums.
 * @throws {ImageError} ERR_IMAGE_CORRUPT
 */
export async function verifyImage(image: Image, signal?: AbortSignal): Promise<void> {
  for (const [fileName, expected] of Object.entries(image.manifest.files)) {
    const actual = await describeFile(path.join(image.dir, fileName), signal);
    if (actual.sha256 !== expected.sha256) {
      throw corrupt(image.name, `${fileName} is not what was built (SHA-256 differs)`);
    }
  }
}
