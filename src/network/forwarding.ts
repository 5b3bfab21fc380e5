/** Whether the host forwards packets between its interfaces; had forward, and put back. */
import { readdir, readFile, writeFile } from 'node:fs/promises';
import type { IpVersion } from '../../nft/index.ts';
import { NetworkSetupError } from '../errors.ts';
import { recall, remember } from './host-dir.ts';
import { writeSetting } from './host-settings.ts';
import { ipJson, type IpCallOptions } from './ip-command.ts';
import { ignoreMissing } from './tap.ts';

/**
 * Documentation/networking/ip-sysctl.rst; and where it is remembered what that was before us: `0`, and the names of
 * interfaces that forwarded by themselves. Whoever writes the setting writes those of all interfaces with it.
 */
const SETTINGS: Readonly<
  Record<IpVersion, { name: string; path: string; interfaces: string; before: string }>
> = {
  4: {
    name: 'net.ipv4.ip_forward',
    path: '/proc/sys/net/ipv4/ip_forward',
    interfaces: '/proc/sys/net/ipv4/conf',
    before: 'ip-forward-before',
  },
  6: {
    name: 'net.ipv6.conf.all.forwarding',
    path: '/proc/sys/net/ipv6/conf/all/forwarding',
    interfaces: '/proc/sys/net/ipv6/conf',
    before: 'ipv6-forwarding-before',
  },
};

/** What the setting is called. */
export function forwardingName(version: IpVersion): string {
  return SETTINGS[version].name;
}

/** Whether the host forwards. Default: IPv4. */
export async function isForwarding(version: IpVersion = 4): Promise<boolean> {
  return (await settingOf(version)) === '1';
}

/**
 * @returns whether there was anything to do
 * @throws HostError ERR_HOST_PERMISSION; NetworkSetupError the host has no IPv6, or would lose its own with it
 */
export async function enableForwarding(version: IpVersion, o: IpCallOptions): Promise<boolean> {
  const { path, before } = SETTINGS[version];
  if (await isForwarding(version)) return false;
  if (version === 6) await checkAdvertisements(o);
  await remember(before, ['0', ...(await forwardingInterfaces(version))].join(' '));
  await writeSetting(path, '1');
  return true;
}

/** Whether it is on because of us, as far as that is known. */
export async function isForwardingOurs(version: IpVersion): Promise<boolean> {
  return (await recall(SETTINGS[version].before))?.split(' ')[0] === '0';
}

/** Left on where it was on before us, or where that is not known any more: others may live by it. */
export async function restoreForwarding(version: IpVersion): Promise<boolean> {
  const { path, before } = SETTINGS[version];
  const [was, ...names] = (await recall(before))?.split(' ') ?? [];
  if (was !== '0') return false;
  await writeSetting(path, '0');
  for (const name of names) await writeFile(ofInterface(version, name), '1').catch(ignoreMissing); // it is gone
  await remember(before, undefined);
  return true;
}

/**
 * Interfaces of the host that have routes by router advertisements and hear no more of those once the host forwards:
 * with `accept_ra=1` a router listens to none, and the routes that it has run out.
 */
export async function advertisedInterfaces(o: IpCallOptions = {}): Promise<string[]> {
  const routes = (await ipJson(['-6', 'route', 'show', 'proto', 'ra'], o)) as { dev?: string }[];
  const names = [...new Set(routes.flatMap(({ dev }) => dev ?? []))];
  const deaf = await Promise.all(names.map(async (name) => (await acceptRa(name)) === '1'));
  return names.filter((_, index) => deaf[index]);
}

/** Whether IPv6 leads anywhere from this host. */
export async function hasDefaultRoute6(o: IpCallOptions = {}): Promise<boolean> {
  return ((await ipJson(['-6', 'route', 'show', 'default'], o)) as unknown[]).length > 0;
}

async function checkAdvertisements(o: IpCallOptions): Promise<void> {
  if ((await settingOf(6)) === '') {
    throw new NetworkSetupError('this host’s kernel has no IPv6', {
      hint: 'Boot it without ipv6.disable=1; or leave --ipv6 out.',
    });
  }
  const names = await advertisedInterfaces(o);
  const [name] = names;
  if (name === undefined) return;
  throw new NetworkSetupError(
    `this host would lose its own IPv6 if it forwarded: it has its routes by router advertisements on ${names.join(', ')}`,
    {
      hint: `Have it listen to them as a router, too, also after its next boot (sysctl.d): ${names.map((one) => `sysctl -w net.ipv6.conf.${one.replaceAll('.', '/')}.accept_ra=2`).join('; ')}.`,
    },
  );
}

async function acceptRa(name: string): Promise<string> {
  const path = `/proc/sys/net/ipv6/conf/${name}/accept_ra`;
  return (await readFile(path, 'utf8').catch(() => '')).trim();
}

/** Interfaces that forward, and `default` where new ones do. */
async function forwardingInterfaces(version: IpVersion): Promise<string[]> {
  const names = await readdir(SETTINGS[version].interfaces);
  const values = await Promise.all(
    names.map((name) => readFile(ofInterface(version, name), 'utf8').catch(() => '')),
  );
  return names.filter((name, index) => name !== 'all' && values[index]?.trim() === '1');
}

function ofInterface(version: IpVersion, name: string): string {
  return `${SETTINGS[version].interfaces}/${name}/forwarding`;
}

async function settingOf(version: IpVersion): Promise<string> {
  return (await readFile(SETTINGS[version].path, 'utf8').catch(() => '')).trim();
}
