/** What files take on the host's disk, holes left out. */
import type { Stats } from 'node:fs';
import { lstat, readdir } from 'node:fs/promises';
import { join } from 'node:path';

/** `st_blocks` counts 512 bytes whatever the file system. */
const BLOCK_BYTES = 512;

/**
 * Bytes that a file, or a directory with all in it, takes on the host; 0 where it is gone. Links are
 * not followed.
 * @param seen files with several names that were counted already: each counts once
 */
export async function allocatedBytes(path: string, seen = new Set<string>()): Promise<number> {
  const facts = await lstat(path).catch(() => undefined);
  if (facts === undefined || isCounted(facts, seen)) return 0;
  const own = facts.blocks * BLOCK_BYTES;
  if (!facts.isDirectory()) return own;
  let sum = own;
  for (const name of await readdir(path).catch(() => []))
    sum += await allocatedBytes(join(path, name), seen);
  return sum;
}

function isCounted({ dev, ino, nlink }: Stats, seen: Set<string>): boolean {
  if (nlink < 2) return false;
  const key = `${dev}:${ino}`;
  if (seen.has(key)) return true;
  seen.add(key);
  return false;
}
