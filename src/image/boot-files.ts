/** The initramfs of an image for this version of the agent. */
import { createHash, randomBytes } from 'node:crypto';
import { constants } from 'node:fs';
import {
  chmod,
  copyFile,
  mkdir,
  open,
  readFile,
  readdir,
  rename,
  rm,
  stat,
  utimes,
} from 'node:fs/promises';
import path from 'node:path';
import { assetPath } from '../../firmware/assets.ts';
import { cpioArchive } from '../../firmware/cpio.ts';
import { agentEntries, initramfsPadding } from '../../firmware/initramfs.ts';
import { agentFiles, type AgentFiles } from '../../guest-agent/bundle.ts';
import { agentSnapshotPart } from './agent-snapshot.ts';
import { BOOT_CPIO } from './manifest.ts';
import type { BootFiles, Image } from './types.ts';
import { asHostError } from './workshop.ts';

/** An initramfs that nobody has booted for so long is removed. */
const UNUSED_MS = 14 * 24 * 3600 * 1000;

/** What {@link makeBootFiles} may be told. */
export interface BootFilesOptions {
  /** Default: the agent of this package. */
  readonly agent?: AgentFiles | undefined;
  readonly signal?: AbortSignal | undefined;
}

/**
 * Kernel and initramfs for an image; the initramfs is made where this agent's is not in the cache
 * (some 20 ms), atomically, so two processes may do it at once.
 * @throws {HostError} ERR_HOST_DISK_FULL
 * @throws {StateDirError} the cache cannot be written
 * @throws the signal's reason
 */
export async function makeBootFiles(
  image: Image,
  cacheDir: string,
  { agent, signal }: BootFilesOptions = {},
): Promise<BootFiles> {
  const { hash, files } = agent ?? (await agentFiles());
  const snapshot =
    agent === undefined
      ? await agentSnapshotPart(image.manifest, cacheDir, { hash, files }, signal)
      : undefined;
  const init = await readFile(assetPath('init/init'));
  const part = cpioArchive(agentEntries({ init, agent: files }));
  const bootSha256 = image.manifest.files[BOOT_CPIO]?.sha256 ?? '';
  const key = createHash('sha256')
    .update(bootSha256)
    .update(hash)
    .update(snapshot?.key ?? '')
    .update(part)
    .digest('hex');
  const dir = path.join(cacheDir, 'initramfs');
  const initramfsPath = path.join(dir, `${key.slice(0, 24)}.cpio`);
  const now = new Date();
  const bootCpio = path.join(image.dir, BOOT_CPIO);
  const bare = (await stat(bootCpio)).size + (snapshot?.sizeBytes ?? 0) + part.length;
  const padding = Buffer.alloc(initramfsPadding(bare));
  const expected = bare + padding.length;
  const present = await stat(initramfsPath).catch(() => undefined);
  if (present?.size === expected) {
    await utimes(initramfsPath, now, now).catch(() => undefined); // used, so kept
  } else {
    try {
      await mkdir(dir, { recursive: true });
      await removeUnused(dir, now.getTime());
      const cached = snapshot === undefined ? [] : [await readFile(snapshot.path)];
      await write(bootCpio, Buffer.concat([...cached, part, padding]), initramfsPath);
    } catch (error) {
      throw asHostError(error, dir);
    }
  }
  return { kernelPath: image.kernelPath, initramfsPath };
}

async function write(bootCpio: string, part: Buffer, target: string): Promise<void> {
  const temporary = `${target}.${process.pid}-${randomBytes(4).toString('hex')}.tmp`;
  try {
    await copyFile(bootCpio, temporary, constants.COPYFILE_FICLONE);
    await chmod(temporary, 0o600); // the image's own is read-only, which only root may write to
    const handle = await open(temporary, 'a');
    try {
      await handle.writeFile(part);
    } finally {
      await handle.close();
    }
    await rename(temporary, target);
  } catch (error) {
    await rm(temporary, { force: true });
    throw error;
  }
}

async function removeUnused(dir: string, nowMs: number): Promise<void> {
  for (const name of await readdir(dir)) {
    const file = path.join(dir, name);
    const status = await stat(file).catch(() => undefined);
    if (status !== undefined && nowMs - status.mtimeMs > UNUSED_MS) await rm(file, { force: true });
  }
}
