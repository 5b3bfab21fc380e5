import { fileURLToPath } from 'node:url';

/** Path of a file that lies beside the sources (and beside the compiled ones): `init/init`, `hooks/…`. */
export function assetPath(name: string): string {
  return fileURLToPath(new URL(name, new URL('.', import.meta.url)));
}
