/**
 * What all processes on a host have to agree on, whichever state directories they work with: interfaces
 * and rules are the host's.
 */
import { mkdir, readFile, rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { MAX_GENERATION } from '../../nft/index.ts';
import { HostError } from '../errors.ts';
import { withLock } from '../with-lock.ts';

/** Gone with the next boot, as interfaces and rules are. */
export const HOST_DIR = '/run/qmp-agent-network';
/** Most that a file here holds: the names of 4,000 interfaces. */
const MAX_TEXT = 65_536;

/**
 * Runs `work` while no other process makes or takes away a tap.
 * @throws HostError ERR_HOST_PERMISSION
 */
export async function withHostNetwork<T>(
  signal: AbortSignal | undefined,
  work: () => Promise<T>,
): Promise<T> {
  try {
    await mkdir(HOST_DIR, { recursive: true, mode: 0o700 });
  } catch (error) {
    throw notPermitted(error);
  }
  return withLock(join(HOST_DIR, 'lock'), signal, work);
}

/**
 * Another number for each VM that gets this tap, so that no connection of an earlier VM with the same address
 * is taken for one of its own. Each tap has its own count: whoever borrows one over and over winds on that of nobody
 * else. Call it within {@link withHostNetwork}.
 */
export async function nextGeneration(tap: string): Promise<number> {
  const path = join(HOST_DIR, `generation-${tap}`);
  const last = Number(await readFile(path, 'utf8').catch(() => '0'));
  const next = Number.isInteger(last) && last >= 0 ? (last + 1) % (MAX_GENERATION + 1) : 0;
  await writeFile(`${path}.new`, String(next));
  await rename(`${path}.new`, path);
  return next;
}

/** Remembers something about this host until its next boot. */
export async function remember(name: string, text: string | undefined): Promise<void> {
  await writeFile(join(HOST_DIR, name), text ?? '');
}

/** What was remembered; undefined: nothing. */
export async function recall(name: string): Promise<string | undefined> {
  const text = await readFile(join(HOST_DIR, name), 'utf8').catch(() => '');
  return text === '' ? undefined : text.slice(0, MAX_TEXT);
}

function notPermitted(error: unknown): unknown {
  const { code } = error as NodeJS.ErrnoException;
  if (code !== 'EACCES' && code !== 'EPERM' && code !== 'EROFS') return error;
  return new HostError('ERR_HOST_PERMISSION', 'this process may not make taps', {
    hint: 'Run as root; or take --network isolated, or --network user.',
    cause: error,
  });
}
