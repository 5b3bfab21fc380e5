/** The tap of a VM: how it is made, step by step, and taken away. */
import { readdir, readFile, writeFile } from 'node:fs/promises';
import { BRIDGED_TAP_NAME, TAP_GROUP } from '../../nft/index.ts';
import { NetworkInterfaceError } from '../errors.ts';
import { GATEWAY_MAC, TAP_NAME, TAP_PREFIX, type Endpoint } from './endpoint.ts';
import { TAP_PREFIX6 } from './ula.ts';
import { ipBatch, type IpCallOptions } from './ip-command.ts';
import { forgetMaking, isInMaking, noteMaking } from './making.ts';

/** Whose a tap is: written on it, where anybody can read it (`ip link`), and gone with it. */
export interface TapOwner {
  /** Which state directory the VM is in, {@link stateKey}. */
  readonly state: string;
  readonly vmId: string;
}

/** A tap that is there. */
export interface ExistingTap {
  readonly tap: string;
  /** Undefined: it is {@link isUnfinished}, or somebody else's. */
  readonly owner: TapOwner | undefined;
  /** As it is between our first two commands, of which the first was about to be done: not up, nothing written on it. */
  readonly isUnfinished: boolean;
  /** Its rules, or its guard, have been made. */
  readonly isUp: boolean;
}

/** First word of what is written on our taps. */
const ALIAS = 'qmp-agent';
const ALIAS_TEXT = /^qmp-agent:([0-9a-f]+):([0-9a-f]+)$/;
/** netdevice(7). */
const IFF_UP = 1;
const OURS = new RegExp(`^(?:${TAP_NAME}|${BRIDGED_TAP_NAME})[0-9]+$`);

/**
 * It is made, says whose it is, and is in the group that the rules drop by; it is down. Pure.
 *
 * Persistent, so that it is there before QEMU is, and with it the rules.
 */
export function makeCommands({ tap }: Endpoint, owner: TapOwner): string[] {
  return [
    `tuntap add dev ${tap} mode tap`,
    `link set dev ${tap} group ${TAP_GROUP} address ${GATEWAY_MAC} alias ${aliasOf(owner)}`,
  ];
}

/** The same for a port of a bridge. Pure. */
export function portCommands(
  tap: string,
  o: { owner: TapOwner; mac: string; bridge: string },
): { make: string[]; raise: string[] } {
  return {
    make: [
      `tuntap add dev ${tap} mode tap`,
      `link set dev ${tap} address ${portMac(o.mac)} alias ${aliasOf(o.owner)}`,
    ],
    raise: [`link set dev ${tap} master ${o.bridge} up`],
  };
}

/**
 * A bridge takes the lowest MAC address among its ports for its own where it has not been given one, and neighbours
 * would lose the host: so a port's begins with `fe`. One guest in 64 has an address that begins so too; its port has
 * another, as a bridge keeps for its host what is sent to an address of a port.
 */
function portMac(guestMac: string): string {
  const mac = `fe${guestMac.slice(2)}`;
  if (mac !== guestMac) return mac;
  const last = Number.parseInt(mac.slice(-1), 16) ^ 1;
  return mac.slice(0, -1) + last.toString(16);
}

function aliasOf({ state, vmId }: TapOwner): string {
  return `${ALIAS}:${state}:${vmId}`;
}

/** Whether an interface is a tap of ours, by its name. */
export function isOurTap(name: string): boolean {
  return OURS.test(name);
}

/** Whether a tap is a port of a bridge, by its name. */
export function isBridged(tap: string): boolean {
  return tap.startsWith(BRIDGED_TAP_NAME);
}

/** It goes up, with its addresses; the guest's are known, so that nobody is asked for them. Pure. */
export function raiseCommands(
  { tap, gatewayAddress, guestAddress, v6 }: Omit<Endpoint, 'index'>,
  mac: string,
): string[] {
  const guestAddresses = [guestAddress, ...(v6 === undefined ? [] : [v6.guestAddress])];
  return [
    `address add ${gatewayAddress}/${TAP_PREFIX} dev ${tap}`,
    ...(v6 === undefined
      ? []
      : [`address add ${v6.gatewayAddress}/${TAP_PREFIX6} dev ${tap} nodad`]),
    `link set dev ${tap} up`,
    ...guestAddresses.map(
      (address) => `neighbour replace ${address} lladdr ${mac} dev ${tap} nud permanent`,
    ),
  ];
}

/**
 * What the kernel does with packets of the tap beyond the rules: no IPv6, no redirects, no other's
 * addresses (Documentation/networking/ip-sysctl.rst).
 */
export const TAP_SYSCTLS: readonly (readonly [path: string, value: string])[] = [
  ['ipv6/conf/*/disable_ipv6', '1'],
  ['ipv4/conf/*/accept_redirects', '0'],
  ['ipv4/conf/*/send_redirects', '0'],
  ['ipv4/conf/*/accept_source_route', '0'],
  ['ipv4/conf/*/rp_filter', '1'],
  ['ipv4/conf/*/arp_ignore', '1'],
];

/**
 * The same of a tap that has IPv6, in this order: nothing is found out by it, neither addresses nor routers nor neighbours,
 * no address but the one that it is given, and it is off until all that holds.
 */
export const TAP_SYSCTLS6: readonly (readonly [path: string, value: string])[] = [
  ['ipv6/conf/*/addr_gen_mode', '1'], // none: no link-local address
  ['ipv6/conf/*/accept_ra', '0'],
  ['ipv6/conf/*/autoconf', '0'],
  ['ipv6/conf/*/accept_dad', '0'],
  ['ipv6/conf/*/dad_transmits', '0'],
  ['ipv6/conf/*/router_solicitations', '0'],
  ['ipv6/conf/*/accept_redirects', '0'],
  ['ipv6/conf/*/accept_source_route', '-1'],
  ['ipv6/conf/*/proxy_ndp', '0'],
  ['ipv6/conf/*/disable_ipv6', '0'],
];

/** Makes it; it is down. @throws NetworkInterfaceError it is there already; HostError no permission */
export async function makeTap(
  endpoint: Endpoint,
  owner: TapOwner,
  o: IpCallOptions = {},
): Promise<void> {
  await ipBatch(makeCommands(endpoint, owner), o);
  await hardenTap(endpoint.tap);
}

/** Sets {@link TAP_SYSCTLS}. */
export async function hardenTap(tap: string): Promise<void> {
  // A kernel without IPv6 has none of its settings.
  await Promise.all(TAP_SYSCTLS.map((one) => writeSysctl(tap, one).catch(ignoreMissing)));
}

function writeSysctl(tap: string, [path, value]: (typeof TAP_SYSCTLS)[number]): Promise<void> {
  return writeFile(`/proc/sys/net/${path.replace('*', tap)}`, value);
}

/** Puts it up. In another namespace it is to have no IPv6: its settings there are not in reach. */
export async function raiseTap(
  endpoint: Omit<Endpoint, 'index'>,
  mac: string,
  o: IpCallOptions = {},
): Promise<void> {
  if (endpoint.v6 !== undefined)
    for (const setting of TAP_SYSCTLS6) await writeSysctl(endpoint.tap, setting);
  await ipBatch(raiseCommands(endpoint, mac), o);
}

/** Takes it away; no error where it is gone. */
export async function removeTap(tap: string, o: IpCallOptions = {}): Promise<void> {
  await ipBatch([`link delete dev ${tap}`], o).catch((error: unknown) => {
    if (!(error instanceof NetworkInterfaceError && /Cannot find device/.test(error.stderr)))
      throw error;
  });
}

/** Names of all interfaces. */
export function interfaces(): Promise<string[]> {
  return readdir('/sys/class/net');
}

/** Its number, which no other has after it, as another may have its name. 0: it is gone. */
export async function ifindexOf(tap: string): Promise<number> {
  return Number(await readFile(`/sys/class/net/${tap}/ifindex`, 'utf8').catch(() => '0'));
}

/** All of our taps, with their owners. An interface that somebody else has given such a name is none. */
export async function existingTaps(o: IpCallOptions = {}): Promise<ExistingTap[]> {
  const names = (await interfaces()).filter((name) => OURS.test(name));
  const all = await Promise.all(names.map(lookAtTap));
  o.signal?.throwIfAborted();
  return all.filter(({ owner, isUnfinished }) => owner !== undefined || isUnfinished);
}

/** What there is by this name: nobody's, where it is gone. */
export async function lookAtTap(tap: string): Promise<ExistingTap> {
  const read = async (name: string) =>
    (await readFile(`/sys/class/net/${tap}/${name}`, 'utf8').catch(() => '')).trim();
  const [alias, flags, kind] = await Promise.all(['ifalias', 'flags', 'tun_flags'].map(read));
  const [, state, vmId] = ALIAS_TEXT.exec(alias ?? '') ?? [];
  const isUp = (Number(flags) & IFF_UP) !== 0;
  return {
    tap,
    owner: state === undefined || vmId === undefined ? undefined : { state, vmId },
    isUnfinished: alias === '' && kind !== '' && !isUp && (await isInMaking(tap)),
    isUp,
  };
}

/**
 * Makes a tap, or leaves none where that fails. To be called under the host's lock.
 * @param vmId whose `make` writes on it that it is; undefined: nothing can fail once anything is written on it
 * @throws what `make` throws
 */
export async function makeOrRemove(
  tap: string,
  vmId: string | undefined,
  make: () => Promise<void>,
): Promise<void> {
  await noteMaking(tap);
  try {
    await make();
  } catch (error) {
    // Its first step may have been done. What another has made says whose it is, or is up.
    const { owner, isUnfinished } = await lookAtTap(tap);
    if ((vmId !== undefined && owner?.vmId === vmId) || isUnfinished) await removeTap(tap);
    await forgetMaking(tap);
    throw error;
  }
  await forgetMaking(tap);
}

/** Of a setting that this kernel has not. */
export function ignoreMissing(error: unknown): void {
  if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
}
