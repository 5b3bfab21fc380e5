/** What this process may do to the host's network. */
import { constants } from 'node:fs';
import { access, readFile } from 'node:fs/promises';
import { dirname } from 'node:path';
import { HOST_DIR } from './host-dir.ts';

/** Bit of CAP_NET_ADMIN (linux/capability.h). */
const NET_ADMIN = 12n;

/**
 * Whether it, and the tools that it starts, may make taps. What root's processes may, those have that they start; of
 * others they have the ambient capabilities (capabilities(7)). All who make taps share a directory of root's.
 */
export async function mayMakeTaps(): Promise<boolean> {
  const status = await readFile('/proc/self/status', 'utf8').catch(() => '');
  const [, set = '0'] =
    (process.getuid?.() === 0 ? /^CapEff:\s*(\w+)/m : /^CapAmb:\s*(\w+)/m).exec(status) ?? [];
  if (((BigInt(`0x${set}`) >> NET_ADMIN) & 1n) === 0n) return false;
  return (await isWritable(HOST_DIR)) ?? (await isWritable(dirname(HOST_DIR))) ?? false;
}

/** Undefined: it is not there. */
async function isWritable(dir: string): Promise<boolean | undefined> {
  return access(dir, constants.W_OK | constants.X_OK).then(
    () => true,
    ({ code }: NodeJS.ErrnoException) => (code === 'ENOENT' ? undefined : false),
  );
}
