/** Where the lab keeps what takes long to make, by content. */
import { createHash } from 'node:crypto';
import { readdir, readFile, stat } from 'node:fs/promises';
import { homedir } from 'node:os';
import { basename, join } from 'node:path';

/** Directory of the lab's disks: `$QMP_AGENT_LAB_CACHE`, or below the user's cache directory. */
export function cacheDir(env: NodeJS.ProcessEnv = process.env): string {
  const base = env['XDG_CACHE_HOME']?.startsWith('/')
    ? env['XDG_CACHE_HOME']
    : join(env['HOME'] ?? homedir(), '.cache');
  return env['QMP_AGENT_LAB_CACHE'] ?? join(base, 'qmp-agent-lab');
}

/** Short hash of the names and contents of files, wherever they are: a second clone shares the cache. */
export async function hashFiles(paths: readonly string[]): Promise<string> {
  const hash = createHash('sha256');
  for (const path of paths) hash.update(basename(path)).update(await readFile(path));
  return hash.digest('hex').slice(0, 16);
}

/**
 * Short hash of a directory's listing (paths, sizes, times of change). Contents are not read: a
 * disk image has gigabytes.
 */
export async function hashListing(dir: string): Promise<string> {
  const hash = createHash('sha256').update(dir);
  const names = await readdir(dir, { recursive: true });
  for (const name of names.sort()) {
    const { size, mtimeMs, mode } = await stat(join(dir, name)).catch(() => ({
      size: -1, // a dangling link
      mtimeMs: 0,
      mode: 0,
    }));
    hash.update(`${name}\0${size}\0${mtimeMs}\0${mode}\n`);
  }
  return hash.digest('hex').slice(0, 16);
}
