/** The package's version, from the package.json above this file, wherever it was built to. */
import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** Folders to look through, upwards. */
const MAX_LEVELS = 6;

/** E.g. `0.1.0`. */
export function readVersion(): string {
  let dir = dirname(fileURLToPath(import.meta.url));
  for (let level = 0; level < MAX_LEVELS; level += 1) {
    try {
      const found = JSON.parse(readFileSync(join(dir, 'package.json'), 'utf8')) as {
        name?: string;
        version?: string;
      };
      if (found.name === 'qmp-agent' && found.version !== undefined) return found.version;
    } catch {
      // Not in this folder.
    }
    dir = dirname(dir);
  }
  return '0.0.0-unknown';
}
