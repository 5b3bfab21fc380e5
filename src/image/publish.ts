/** The last part of every build and import: qcow2, checksums, manifest, and into the store at once. */
import { randomBytes } from 'node:crypto';
import {
  chmod,
  copyFile,
  link,
  mkdir,
  open,
  readdir,
  readlink,
  rename,
  rm,
  symlink,
  writeFile,
} from 'node:fs/promises';
import path from 'node:path';
import type { BootKit } from '../../firmware/boot-kit.ts';
import { runBuildCommand, type BuildLog } from '../../firmware/build-process.ts';
import { BOOT_CPIO, describeFile, MANIFEST, openImage, ROOTFS } from './manifest.ts';
import { IMAGE_SCHEMA, type Image, type ImageFile, type ImageManifest } from './types.ts';

/** Name of the link in an image's directory that points to the version in use. */
export const CURRENT = 'current';

/** What a manifest says besides what publishing finds out. */
export type ManifestFacts = Omit<
  ImageManifest,
  'schema' | 'id' | 'createdAt' | 'kernelVersion' | 'arch' | 'virtualBytes' | 'files'
>;

/** A root file system to become an image. */
export interface PublishOptions {
  /** `<images>/<name>`. */
  readonly imageDir: string;
  /** Raw ext4 image; on the same file system as `imageDir`. */
  readonly rawPath: string;
  readonly virtualBytes: number;
  readonly kit: BootKit;
  readonly facts: ManifestFacts;
  readonly workDir: string;
  readonly log: BuildLog;
  readonly signal?: AbortSignal | undefined;
  readonly onStep?: ((step: string) => void) | undefined;
}

/** Steps of {@link publishImage}. */
export const PUBLISH_STEPS: readonly string[] = ['disk image', 'checksums'];

/** Makes the image of a root file system and puts it into the store by one rename. */
export async function publishImage(options: PublishOptions): Promise<Image> {
  const { imageDir, kit, facts, log, signal } = options;
  const stage = path.join(options.workDir, 'image');
  await mkdir(stage);
  options.onStep?.('disk image');
  const rootfs = path.join(stage, ROOTFS);
  await runBuildCommand({
    step: 'disk image',
    argv: ['qemu-img', 'convert', '-q', '-f', 'raw', '-O', 'qcow2', '-W', options.rawPath, rootfs],
    log,
    signal,
  });
  // For its space; without root it is another user's, and goes with the work directory.
  await rm(options.rawPath).catch(() => undefined);
  await shareFile(kit.kernelPath, path.join(stage, path.basename(kit.kernelPath)));
  await shareFile(kit.bootCpioPath, path.join(stage, BOOT_CPIO));
  options.onStep?.('checksums');
  const files: Record<string, ImageFile> = {};
  for (const name of (await readdir(stage)).sort()) {
    files[name] = await describeFile(path.join(stage, name), signal);
    await chmod(path.join(stage, name), 0o444);
  }
  const manifest: ImageManifest = {
    schema: IMAGE_SCHEMA,
    id: (files[ROOTFS]?.sha256 ?? '').slice(0, 12),
    createdAt: new Date().toISOString(),
    kernelVersion: kit.kernelVersion,
    arch: 'amd64',
    virtualBytes: options.virtualBytes,
    files,
    ...facts,
  };
  await writeFile(path.join(stage, MANIFEST), `${JSON.stringify(manifest, undefined, 2)}\n`);
  await flushToDisk(stage);
  signal?.throwIfAborted();
  return swapIn(facts.name, imageDir, stage, manifest.id);
}

/** A hard link where the file system allows one: kernel and boot part are the same for all images of a kit. */
async function shareFile(from: string, to: string): Promise<void> {
  await link(from, to).catch(() => copyFile(from, to));
}

async function flushToDisk(dir: string): Promise<void> {
  for (const name of await readdir(dir)) {
    const handle = await open(path.join(dir, name), 'r');
    await handle.sync().finally(() => handle.close());
  }
}

/**
 * VMs stand on a version's directory, never on the link, so a rebuild does not pull the ground from
 * under them.
 */
async function swapIn(name: string, imageDir: string, stage: string, id: string): Promise<Image> {
  const version = `${id}-${randomBytes(2).toString('hex')}`;
  const target = path.join(imageDir, version);
  await rename(stage, target);
  const next = path.join(imageDir, `.${CURRENT}-${version}`);
  await symlink(version, next);
  await rename(next, path.join(imageDir, CURRENT));
  return openImage(name, target);
}

/** Directories of an image's versions. */
export async function allVersions(
  imageDir: string,
): Promise<{ dir: string; isCurrent: boolean }[]> {
  const current = await readlink(path.join(imageDir, CURRENT)).catch(() => undefined);
  const names = await readdir(imageDir).catch(() => []);
  return names
    .filter((entry) => /^[0-9a-f]{12}-[0-9a-f]{4}$/.test(entry))
    .map((entry) => ({ dir: path.join(imageDir, entry), isCurrent: entry === current }));
}

/** Directories of an image's older versions. */
export async function oldVersions(imageDir: string): Promise<string[]> {
  const all = await allVersions(imageDir);
  return all.flatMap(({ dir, isCurrent }) => (isCurrent ? [] : [dir]));
}
