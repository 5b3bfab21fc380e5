/** The one error of imports, and texts of archives in it. */
import { ImageError } from '../../errors.ts';

/** What is wrong with a source, and what would be right. */
export function importError(message: string, hint: string, cause?: unknown): ImageError {
  return new ImageError('ERR_IMAGE_IMPORT', message, { hint, cause });
}

/** Hint for archives that are not what whoever made them meant to make. */
export const MAKE_ANEW =
  'Make the archive anew, or fetch it again: it is damaged or was cut short.';

/** Hint for entries that no honest archive has. */
export const DO_NOT_TRUST =
  'Nothing was unpacked. Do not trust this archive; ask whoever made it, or make your own.';

const MAX_SHOWN = 120;

/** A name from an archive (a string of bytes) as people may see it: decoded, quoted, bounded. */
export function showName(bytes: string): string {
  const text = Buffer.from(bytes, 'latin1').toString('utf8');
  return JSON.stringify(text.length > MAX_SHOWN ? `${text.slice(0, MAX_SHOWN)}…` : text);
}
