/** Disks of VMs: copy-on-write overlays over an image's read-only root file system. */
import { open, rm, stat, truncate } from 'node:fs/promises';
import { resolve } from 'node:path';
import { asDiskFull } from '../disk-full.ts';
import { ConfigError, ImageError, StateDirError } from '../errors.ts';
import {
  buildOverlay,
  HEADER_PREFIX_BYTES,
  MAX_DISK_BYTES,
  parseHeader,
  type Qcow2Facts,
} from './qcow2-header.ts';

const SECTOR_BYTES = 512;

/** What {@link createOverlay} makes. */
export interface OverlayOptions {
  /** The new file; must not exist. */
  readonly path: string;
  /** qcow2 that the overlay stands on. It is never written to. */
  readonly backing: string;
  /** What the guest sees; at least the backing file's size. Default: that. */
  readonly sizeBytes?: number | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** A disk that was made. */
export interface Overlay {
  readonly path: string;
  /** What the guest sees. */
  readonly virtualBytes: number;
}

/**
 * Makes an empty overlay. It takes 256 KiB on the host at most, and grows with what the guest writes.
 * @throws ImageError ERR_IMAGE_CORRUPT the backing file is missing or no qcow2
 * @throws ConfigError a size below the image's, or above 1 TiB
 * @throws HostError ERR_HOST_DISK_FULL
 */
export async function createOverlay(o: OverlayOptions): Promise<Overlay> {
  const backing = resolve(o.backing);
  const { virtualBytes: backingBytes } = await readQcow2(backing);
  o.signal?.throwIfAborted();
  const virtualBytes = diskSize(o.sizeBytes, backingBytes);
  const { chunks, fileBytes } = buildOverlay({ backingPath: backing, virtualBytes });
  const file = await open(o.path, 'wx', 0o600).catch((error: unknown) => {
    throw asHostFault(error, o.path);
  });
  try {
    for (const { offset, data } of chunks) await file.write(data, 0, data.length, offset);
    await file.truncate(fileBytes);
  } catch (error) {
    await rm(o.path, { force: true });
    throw asHostFault(error, o.path);
  } finally {
    await file.close();
  }
  return { path: o.path, virtualBytes };
}

/**
 * What a qcow2 file says about itself.
 * @throws ImageError ERR_IMAGE_CORRUPT missing, or no qcow2
 */
async function readQcow2(path: string): Promise<Qcow2Facts> {
  const prefix = Buffer.alloc(HEADER_PREFIX_BYTES);
  try {
    const file = await open(path, 'r');
    try {
      await file.read(prefix, 0, prefix.length, 0);
    } finally {
      await file.close();
    }
  } catch (error) {
    throw new ImageError('ERR_IMAGE_CORRUPT', `disk image ${path} cannot be read`, {
      hint: 'Build the image again with `qmp-agent image build --force`, or import it again.',
      cause: error,
    });
  }
  const facts = parseHeader(prefix);
  if (facts !== undefined) return facts;
  throw new ImageError('ERR_IMAGE_CORRUPT', `disk image ${path} is not a qcow2 file`, {
    hint: 'Build the image again with `qmp-agent image build --force`, or import it again.',
  });
}

/**
 * Makes a disk's file that long, by a hole that takes no space; a longer one stays as it is.
 * @throws StateDirError, HostError ERR_HOST_DISK_FULL
 */
export async function extendTo(path: string, bytes: number): Promise<void> {
  try {
    const { size } = await stat(path);
    if (size < bytes) await truncate(path, bytes);
  } catch (error) {
    throw asHostFault(error, path);
  }
}

/** Size of a disk as a guest sees it. @throws ImageError ERR_IMAGE_CORRUPT missing, or no qcow2 */
export async function diskBytesOf(path: string): Promise<number> {
  return (await readQcow2(path)).virtualBytes;
}

/** Bytes that a disk takes on the host; 0 where it is gone. */
export async function usedBytes(path: string): Promise<number> {
  const facts = await stat(path).catch(() => undefined);
  return (facts?.blocks ?? 0) * SECTOR_BYTES; // st_blocks counts 512 bytes whatever the file system
}

function diskSize(asked: number | undefined, backingBytes: number): number {
  if (asked === undefined) return backingBytes;
  const sizeBytes = Math.ceil(asked / SECTOR_BYTES) * SECTOR_BYTES;
  if (sizeBytes < backingBytes) {
    throw new ConfigError(`a disk of ${asked} bytes is smaller than its image of ${backingBytes}`, {
      field: 'vm.diskMib',
      value: asked,
      hint: `Ask for at least ${Math.ceil(backingBytes / 2 ** 20)} MiB, or leave the size out.`,
    });
  }
  if (sizeBytes > MAX_DISK_BYTES) {
    throw new ConfigError(`a disk of ${asked} bytes is too large`, {
      field: 'vm.diskMib',
      value: asked,
      hint: `Ask for at most ${MAX_DISK_BYTES / 2 ** 20} MiB.`,
    });
  }
  return sizeBytes;
}

function asHostFault(error: unknown, path: string): Error {
  return (
    asDiskFull(error, `the disk ${path}`) ??
    new StateDirError(`the disk ${path} cannot be created: ${(error as Error).message}`, {
      path,
      hint: 'Make sure that the state directory exists and is writable.',
      cause: error,
    })
  );
}
