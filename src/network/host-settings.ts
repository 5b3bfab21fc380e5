/**
 * What `qmp-agent setup network` has decided for all VMs of this host: one file, which the host reads at its boot, and
 * so outlives what is in `/run`.
 */
import { readFile, rm, writeFile } from 'node:fs/promises';
import { ConfigError, HostError } from '../errors.ts';
import { DEFAULT_POOL, parsePool } from './endpoint.ts';

/** Read at boot: sysctl.d(5). */
export const SETTINGS_FILE = '/etc/sysctl.d/60-qmp-agent.conf';
const POOL_LINE = /^# network\.pool = (\S+)$/m;

/** What is in the file; of pools it names only one that is not the default. Pure. */
export function settingsText(pool: string): string {
  return `# Written by \`qmp-agent setup network\`, taken away by \`qmp-agent setup network --undo\`.
${pool === DEFAULT_POOL ? '' : `# network.pool = ${pool}\n`}net.ipv4.ip_forward = 1
`;
}

/** The pool that a file names, whatever else is in it. Pure. */
export function poolNamedIn(text: string): string {
  return POOL_LINE.exec(text)?.[1] ?? DEFAULT_POOL;
}

/** The pool that a file of ours names; undefined: it is not as we write it. Pure. */
export function poolOf(text: string): string | undefined {
  const pool = poolNamedIn(text);
  return text === settingsText(pool) ? pool : undefined;
}

/**
 * Where the addresses of this host's VMs are from: one for all, as two that overlap would give two VMs one address.
 * Default: {@link DEFAULT_POOL}.
 * @throws ConfigError field `network.pool`: what somebody has written there is no pool
 */
export async function hostPool(): Promise<string> {
  const text = await readFile(SETTINGS_FILE, 'utf8').catch(() => '');
  const pool = poolNamedIn(text); // also where somebody has added to the file: VMs have addresses of it
  try {
    return parsePool(pool).cidr;
  } catch (cause) {
    // VMs may have addresses of the one that was there: nobody but who has changed it knows which.
    throw new ConfigError(
      `${SETTINGS_FILE} says ${JSON.stringify(pool)}, which is no pool of addresses`,
      {
        ...{ field: 'network.pool', value: pool, cause },
        hint: 'Write there what it was, or, where no VM has a tap, take the file away; then run as root: qmp-agent setup network.',
      },
    );
  }
}

/** The pool that was set up; undefined where nothing was. */
export async function readSettings(): Promise<string | undefined> {
  return poolOf(await readFile(SETTINGS_FILE, 'utf8').catch(() => ''));
}

/** @throws HostError ERR_HOST_PERMISSION */
export async function writeSettings(pool: string): Promise<void> {
  await writeSetting(SETTINGS_FILE, settingsText(pool));
}

/** Nothing where it is somebody else's. @returns whether it was there */
export async function removeSettings(): Promise<boolean> {
  if ((await readSettings()) === undefined) return false;
  await rm(SETTINGS_FILE, { force: true });
  return true;
}

/** A file of the host's that only root may write. @throws HostError ERR_HOST_PERMISSION */
export async function writeSetting(path: string, text: string): Promise<void> {
  await writeFile(path, text).catch((error: unknown) => {
    throw new HostError(
      'ERR_HOST_PERMISSION',
      `${path} cannot be written: ${(error as Error).message}`,
      { hint: 'Run as root: sudo qmp-agent setup network.', cause: error },
    );
  });
}
