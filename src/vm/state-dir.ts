/** The state directories: made where they are missing, of a version that we know, ours alone. */
import { lstat, mkdir, readFile, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { asDiskFull } from '../disk-full.ts';
import { HostError, StateDirError } from '../errors.ts';
import { writeWholeFile } from '../whole-file.ts';
import type { StatePaths } from './api.ts';
import { vmsDir } from './vm-paths.ts';

/** Version of everything on disk that this program writes; it refuses later ones. */
export const STATE_SCHEMA = 1;
/** Mode bits. */
const OTHERS_MAY_WRITE = 0o022;
const STICKY = 0o1000;

/** Written by a later version, so to be left alone. */
export class LaterVersionError extends StateDirError {
  constructor(...args: ConstructorParameters<typeof StateDirError>) {
    super(...args);
    this.name = 'StateDirError'; // what users know it as
  }
}

/**
 * Creates the state directories where they are missing, and checks whose they are.
 * @throws StateDirError read-only, somebody else's, or of a later version
 * @throws HostError ERR_HOST_DISK_FULL
 */
export async function ensureStateDirs(paths: StatePaths): Promise<void> {
  const marked = await checkLayout(paths);
  for (const dir of [vmsDir(paths), paths.runtimeDir]) {
    await makeDir(dir);
    await checkOwner(dir);
  }
  if (!marked) await writeWhole(join(paths.dataDir, 'state.json'), { schema: STATE_SCHEMA });
}

/**
 * Checks that the state directory is not of a later version.
 * @returns whether it is marked as ours
 * @throws StateDirError of a later version, or unreadable
 */
export async function checkLayout(paths: StatePaths): Promise<boolean> {
  const marker = join(paths.dataDir, 'state.json');
  const text = await readFile(marker, 'utf8').catch((error: unknown) => {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw stateFault(error, marker);
  });
  if (text === undefined) return false;
  checkSchema(schemaOf(text), marker);
  return true;
}

/** @throws LaterVersionError */
export function checkSchema(schema: unknown, path: string): void {
  if (typeof schema !== 'number' || schema <= STATE_SCHEMA) return;
  throw new LaterVersionError(
    `${path} was written by a later version of qmp-agent (schema ${schema}; this one knows ${STATE_SCHEMA})`,
    {
      path,
      hint: 'Upgrade qmp-agent, or set state.dataDir to another directory for this version.',
    },
  );
}

/**
 * Writes JSON to a file that is never seen half.
 * @param o.durable it is on the disk when this returns, whatever becomes of the host. Default false
 * @throws StateDirError the directory is read-only or gone
 * @throws HostError ERR_HOST_DISK_FULL
 */
export async function writeWhole(
  path: string,
  content: object,
  o: { durable?: boolean } = {},
): Promise<void> {
  const text = `${JSON.stringify(content, undefined, 2)}\n`;
  await writeWholeFile(path, text, o).catch((error: unknown) => {
    throw stateFault(error, path);
  });
}

/** What a failed access to the state directory means. An error that says so already stays as it is. */
export function stateFault(error: unknown, path: string): Error {
  if (error instanceof StateDirError || error instanceof HostError) return error;
  const { code, message } = error as NodeJS.ErrnoException;
  const full = asDiskFull(error, path);
  if (full !== undefined) return full;
  const hint =
    code === 'EROFS'
      ? 'The file system is mounted read-only: mount it for writing, or set state.dataDir and state.runtimeDir to others.'
      : `Make sure that ${dirname(path)} exists, belongs to this user and is writable.`;
  return new StateDirError(`the state directory cannot be used: ${message}`, {
    path,
    hint,
    cause: error,
  });
}

/**
 * Makes a directory, and those above it, where they are missing.
 * @throws StateDirError, HostError ERR_HOST_DISK_FULL
 */
export async function makeDir(dir: string): Promise<void> {
  try {
    await mkdir(dir, { recursive: true, mode: 0o700 });
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    // Node's recursive mkdir says ENOENT whatever the file system answered; a plain one is exact.
    throw stateFault(code === 'ENOENT' ? await whyMissing(dir, error) : error, dir);
  }
}

async function whyMissing(dir: string, error: unknown): Promise<unknown> {
  return mkdir(await firstMissing(dir), { mode: 0o700 }).then(
    () => error,
    (exact: unknown) => exact,
  );
}

async function firstMissing(path: string): Promise<string> {
  const parent = dirname(path);
  const parentExists = await lstat(parent).then(
    () => true,
    () => false,
  );
  return parentExists || parent === path ? path : firstMissing(parent);
}

/**
 * Whoever else may write there could put his own socket or disk in the place of ours.
 * @throws StateDirError
 */
export async function checkOwner(dir: string): Promise<void> {
  const { uid, mode } = await stat(dir);
  const own = process.geteuid?.();
  const foreign = uid !== own && uid !== 0;
  const open = (mode & OTHERS_MAY_WRITE) !== 0 && (mode & STICKY) === 0;
  if (!foreign && !open) return;
  throw new StateDirError(
    foreign ? `${dir} belongs to another user (uid ${uid})` : `other users may write to ${dir}`,
    {
      path: dir,
      hint: `Remove it, or take it for yourself (\`chown ${own} ${dir}; chmod 700 ${dir}\`), or set state.dataDir and state.runtimeDir to directories of your own.`,
    },
  );
}

function schemaOf(text: string): unknown {
  try {
    return (JSON.parse(text) as { schema?: unknown } | null)?.schema;
  } catch {
    return undefined; // a marker that says nothing: the records say what they are
  }
}
