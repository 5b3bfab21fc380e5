/**
 * What `qmp-agent setup network` has decided for all VMs of this host: one file, which the host reads at its boot, and
 * so outlives what is in `/run`.
 */
import { readFile, rm, writeFile } from 'node:fs/promises';
import { ConfigError, HostError } from '../errors.ts';
import { DEFAULT_POOL, parsePool } from './endpoint.ts';
import { parseUla } from './ula.ts';

/** Read at boot: sysctl.d(5). */
export const SETTINGS_FILE = '/etc/sysctl.d/60-qmp-agent.conf';
const POOL_LINE = /^# network\.pool = (\S+)$/m;
const ULA_LINE = /^# network\.ipv6 = (\S+)$/m;

/** What was decided. */
export interface HostSettings {
  /** Where VMs' IPv4 addresses are from. */
  readonly pool: string;
  /** Where their IPv6 addresses are from; undefined: they have none. */
  readonly ula: string | undefined;
}

/** What is in the file; of pools it names only one that is not the default. Pure. */
export function settingsText({ pool, ula }: HostSettings): string {
  return [
    '# Written by `qmp-agent setup network`, taken away by `qmp-agent setup network --undo`.',
    ...(pool === DEFAULT_POOL ? [] : [`# network.pool = ${pool}`]),
    ...(ula === undefined ? [] : [`# network.ipv6 = ${ula}`]),
    'net.ipv4.ip_forward = 1',
    ...(ula === undefined ? [] : ['net.ipv6.conf.all.forwarding = 1']),
    '',
  ].join('\n');
}

/** What a file names, whatever else is in it. Pure. */
export function settingsNamedIn(text: string): HostSettings {
  const [pool, ula] = [POOL_LINE, ULA_LINE].map((line) => line.exec(text)?.[1]);
  return { pool: pool ?? DEFAULT_POOL, ula };
}

/** What a file of ours says; undefined: it is not as we write it. Pure. */
export function settingsOf(text: string): HostSettings | undefined {
  const settings = settingsNamedIn(text);
  return text === settingsText(settings) ? settings : undefined;
}

/**
 * Where the addresses of this host's VMs are from: one for all, as two that overlap would give two VMs one address.
 * Default: {@link DEFAULT_POOL}, and none of IPv6.
 * @throws ConfigError field `network.pool` or `network.ipv6`: what somebody has written there is none
 */
export async function hostPools(): Promise<HostSettings> {
  const text = await readFile(SETTINGS_FILE, 'utf8').catch(() => '');
  const { pool, ula } = settingsNamedIn(text); // also where somebody has added to the file: VMs have addresses of it
  return {
    pool: readable('network.pool', pool, parsePool),
    ula: ula === undefined ? undefined : readable('network.ipv6', ula, parseUla),
  };
}

/** As {@link hostPools}, of IPv4. */
export async function hostPool(): Promise<string> {
  return (await hostPools()).pool;
}

function readable(field: string, value: string, parse: (cidr: string) => { cidr: string }): string {
  try {
    return parse(value).cidr;
  } catch (cause) {
    // VMs may have addresses of the one that was there: nobody but who has changed it knows which.
    throw new ConfigError(
      `${SETTINGS_FILE} says ${JSON.stringify(value)}, which is no pool of addresses`,
      {
        ...{ field, value, cause },
        hint: 'Write there what it was, or, where no VM has a tap, take the file away; then run as root: qmp-agent setup network.',
      },
    );
  }
}

/** What was set up; undefined where nothing was. */
export async function readSettings(): Promise<HostSettings | undefined> {
  return settingsOf(await readFile(SETTINGS_FILE, 'utf8').catch(() => ''));
}

/** @throws HostError ERR_HOST_PERMISSION */
export async function writeSettings(settings: HostSettings): Promise<void> {
  await writeSetting(SETTINGS_FILE, settingsText(settings));
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
