/** Files that are never seen half: written under another name, and renamed into place. */
import { randomBytes } from 'node:crypto';
import { open, rename, rm } from 'node:fs/promises';
import { dirname } from 'node:path';
import { asDiskFull } from './disk-full.ts';

/** How the name of a file ends that is being written, or whose writer died. */
export const TEMPORARY_SUFFIX = /\.[0-9a-f]{8}\.tmp$/;

/**
 * Writes such a file, for nobody else to read.
 * @param o.durable it is on the disk when this returns, whatever becomes of the host. Default false
 * @throws HostError ERR_HOST_DISK_FULL; else the system's error. Nothing is left then
 */
export async function writeWholeFile(
  path: string,
  text: string,
  { durable = false }: { durable?: boolean } = {},
): Promise<void> {
  const temporary = `${path}.${randomBytes(4).toString('hex')}.tmp`;
  try {
    const file = await open(temporary, 'wx', 0o600);
    try {
      await file.writeFile(text);
      if (durable) await file.sync();
    } finally {
      await file.close();
    }
    await rename(temporary, path);
    if (durable) await syncPath(dirname(path));
  } catch (error) {
    await rm(temporary, { force: true }).catch(() => undefined);
    throw asDiskFull(error, path) ?? error;
  }
}

/** Has a file, or a directory's names, on the disk. */
export async function syncPath(path: string): Promise<void> {
  await using file = await open(path, 'r');
  await file.sync();
}
