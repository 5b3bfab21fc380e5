/** The name servers that the C library asks: resolv.conf(5). */
import {
  lstatSync,
  mkdirSync,
  readFileSync,
  readlinkSync,
  renameSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs';
import { dirname, resolve } from 'node:path';

/** Links that are followed from one to the next, as the kernel does at most. */
const MAX_LINKS = 40;

/**
 * Writes the file, so that nobody reads half of it. Where it is a link, what it leads to is written, which
 * need not be there yet: systems keep it below /run.
 */
export function writeResolvConf(path: string, servers: readonly string[]): void {
  const target = followLinks(path);
  const text = ['# Written by qmp-agent.', ...servers.map((ip) => `nameserver ${ip}`), ''].join(
    '\n',
  );
  if (readIfThere(target) === text) return;
  const whole = `${target}.qmp-agent`;
  mkdirSync(dirname(target), { recursive: true });
  removeIfThere(whole);
  writeFileSync(whole, text, { mode: 0o644, flag: 'wx' });
  try {
    renameSync(whole, target);
  } catch (error) {
    removeIfThere(whole);
    // Something is mounted there, as container engines do: nothing can take its place.
    if ((error as NodeJS.ErrnoException).code !== 'EBUSY') throw error;
    writeFileSync(target, text);
  }
}

function followLinks(path: string): string {
  let at = path;
  for (let links = 0; links < MAX_LINKS; links += 1) {
    if (lstatSync(at, { throwIfNoEntry: false })?.isSymbolicLink() !== true) return at;
    at = resolve(dirname(at), readlinkSync(at));
  }
  throw Object.assign(new Error(`${path} leads from link to link`), { code: 'ELOOP' });
}

function readIfThere(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return undefined;
  }
}

function removeIfThere(path: string): void {
  try {
    unlinkSync(path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
  }
}
