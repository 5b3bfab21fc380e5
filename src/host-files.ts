/** What a host has, as far as its files say: devices that open, programs that are there. */
import { access, constants, open } from 'node:fs/promises';
import { delimiter, join } from 'node:path';

/** Opens a file for reading and writing. @returns an errno name, undefined where it opens. */
export async function openError(path: string): Promise<string | undefined> {
  try {
    const file = await open(path, constants.O_RDWR | constants.O_NONBLOCK);
    await file.close();
    return undefined;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code ?? 'EIO';
  }
}

/** Whether a file is there for us. @param mode what we would do with it; default: nothing but know of it */
export async function isThere(path: string, mode = constants.F_OK): Promise<boolean> {
  return access(path, mode).then(
    () => true,
    () => false,
  );
}

/**
 * A program's path; undefined where there is none.
 * @param program its name, or a path
 * @param searched directories as in PATH, where names are looked up. Default: PATH
 */
export async function findProgram(
  program: string,
  searched = process.env['PATH'] ?? '',
): Promise<string | undefined> {
  const dirs = searched.split(delimiter).filter((dir) => dir !== '');
  const candidates = program.includes('/') ? [program] : dirs.map((dir) => join(dir, program));
  for (const candidate of candidates) {
    if (await isThere(candidate, constants.X_OK)) return candidate;
  }
  return undefined;
}
