/** Where builds and imports happen: a lock per image, a temporary directory, a log. */
import { randomBytes } from 'node:crypto';
import { mkdir, readdir, rm, rmdir } from 'node:fs/promises';
import path from 'node:path';
import { BuildLog } from '../../firmware/build-process.ts';
import { removeTree } from '../../firmware/mmdebstrap.ts';
import { asDiskFull } from '../disk-full.ts';
import { HostError, ImageError, StateDirError } from '../errors.ts';
import { withLock } from '../with-lock.ts';

/** Paths of a store. */
export interface StorePaths {
  readonly imagesDir: string;
  readonly cacheDir: string;
  readonly logsDir: string;
}

/** What the work is done in. */
export interface Workshop {
  /** `<images>/<name>`. */
  readonly imageDir: string;
  /** Empty; removed afterwards. */
  readonly workDir: string;
  readonly log: BuildLog;
}

const TEMPORARY = '.tmp-';
/** Logs of builds that are kept. */
const MAX_LOGS = 50;

/** Runs `work` under the lock under which an image is built, imported, removed. */
export async function withImageLock<T>(
  paths: StorePaths,
  name: string,
  signal: AbortSignal | undefined,
  work: () => Promise<T>,
): Promise<T> {
  try {
    return await withLock(path.join(paths.imagesDir, '.locks', name), signal, work);
  } catch (error) {
    throw asHostError(error, paths.imagesDir);
  }
}

/** Runs `work` in a fresh directory under the image's directory, which must be locked. */
export async function inWorkshop<T>(
  paths: StorePaths,
  name: string,
  verb: 'build' | 'import',
  work: (workshop: Workshop) => Promise<T>,
): Promise<T> {
  const imageDir = path.join(paths.imagesDir, name);
  const workDir = path.join(imageDir, `${TEMPORARY}${randomBytes(6).toString('hex')}`);
  try {
    await mkdir(paths.logsDir, { recursive: true });
    await removeLeftovers(imageDir);
    await mkdir(workDir, { recursive: true });
  } catch (error) {
    throw asHostError(error, imageDir);
  }
  await pruneLogs(paths.logsDir);
  const stamp = new Date().toISOString().replaceAll(/[:.]/g, '-');
  await using log = new BuildLog(path.join(paths.logsDir, `${verb}-${name}-${stamp}.log`));
  try {
    return await work({ imageDir, workDir, log });
  } catch (error) {
    throw asHostError(error, imageDir);
  } finally {
    await removeTree(workDir);
    await rmdir(imageDir).catch(() => undefined); // empty where a first build has failed
  }
}

/** What killed builds have left. The lock says that none is under way. */
async function removeLeftovers(imageDir: string): Promise<void> {
  const names = await readdir(imageDir).catch(() => []);
  for (const name of names.filter((entry) => entry.startsWith(TEMPORARY))) {
    await removeTree(path.join(imageDir, name));
  }
}

async function pruneLogs(logsDir: string): Promise<void> {
  const names = (await readdir(logsDir)).filter((name) => /^(build|import)-.*\.log$/.test(name));
  const stampOf = (name: string): string => name.slice(-28);
  names.sort((a, b) => (stampOf(a) < stampOf(b) ? -1 : 1));
  for (const name of names.slice(0, Math.max(0, names.length - MAX_LOGS))) {
    await rm(path.join(logsDir, name), { force: true });
  }
}

/** Names what the host's file system refuses. Other errors pass through. */
export function asHostError(error: unknown, dir: string): unknown {
  if (error instanceof ImageError || error instanceof HostError) return error;
  const hint = 'Free some space, or point state.dataDir to a larger disk.';
  const full = asDiskFull(error, dir, hint);
  if (full !== undefined) return full;
  const code = (error as NodeJS.ErrnoException | undefined)?.code;
  if (code !== undefined && ['EROFS', 'EACCES', 'EPERM', 'ENOTDIR'].includes(code)) {
    return new StateDirError(`cannot write to ${dir}`, {
      path: dir,
      cause: error,
      hint: 'Run as a user who may write there, or set state.dataDir to a directory of your own.',
    });
  }
  return error;
}
