/** What a VM on a bridge is called on its LAN. Its guest has no DHCP client, so somebody has to say. Pure. */
import type { NetworkUp } from '../../guest-agent/protocol.ts';
import { parseCidr } from '../../nft/index.ts';
import { checkOptionNames } from '../config/check-options.ts';
import { ConfigError } from '../errors.ts';

/** Who a VM on a bridge is. */
export interface LanOptions {
  /** IPv4 address with the length of its network: `192.0.2.5/24`. Nobody else may have it. */
  readonly address: string;
  /** IPv4 address that the default route leads to, of the same network. Default: no such route. */
  readonly gateway?: string | undefined;
  /** IPv4 addresses of name servers, at most 3. Default: none. */
  readonly dns?: readonly string[] | undefined;
}

/** All of {@link LanOptions}. */
const OPTION_NAMES: Readonly<Record<keyof LanOptions, true>> = {
  address: true,
  gateway: true,
  dns: true,
};

/** As many as resolv.conf(5) knows. */
const MAX_DNS = 3;
/** A network has another address at least. */
const MAX_LENGTH = 31;
/** From this length on a network has no address of its own, and none for all (RFC 3021). */
const POINT_TO_POINT = 31;

/**
 * What the guest is told.
 * @throws ConfigError fields `vm.lan.address`, `vm.lan.gateway`, `vm.lan.dns`
 */
export function parseLan(o: LanOptions): Omit<NetworkUp, 'mac'> {
  checkOptionNames(o, OPTION_NAMES, { section: 'vm.lan', noun: 'option' });
  const { address: text, gateway, dns = [] } = o;
  const [address = '', lengthText = ''] = text.split('/');
  const host = numberOf(address);
  const prefix = /^\d{1,2}$/.test(lengthText) ? Number(lengthText) : 0;
  if (host === undefined || prefix < 1 || prefix > MAX_LENGTH || text.split('/').length !== 2) {
    throw wrong('address', text, 'no IPv4 address with its network', 'Write it as 192.0.2.5/24.');
  }
  const size = 2 ** (32 - prefix);
  const first = host - (host % size);
  if (prefix < POINT_TO_POINT && (host === first || host === first + size - 1)) {
    const hint = 'Give one of the addresses between the first and the last of the network.';
    throw wrong('address', text, 'the network’s own address, or the one for all in it', hint);
  }
  const next = gateway === undefined ? undefined : numberOf(gateway);
  if (gateway !== undefined && !(next !== undefined && next >= first && next < first + size)) {
    throw wrong('gateway', gateway, `no address of the network of ${text}`, 'Give the router’s.');
  }
  if (next === host) throw wrong('gateway', gateway, 'the VM itself', 'Give the router’s address.');
  if (dns.length > MAX_DNS || dns.some((server) => numberOf(server) === undefined)) {
    throw wrong('dns', dns, 'not name servers', `Give up to ${MAX_DNS} IPv4 addresses.`);
  }
  return { up: true, address, prefix, ...(gateway === undefined ? {} : { gateway }), dns };
}

function numberOf(address: string): number | undefined {
  return address.includes('/') ? undefined : parseCidr(address)?.first;
}

function wrong(key: keyof LanOptions, value: unknown, what: string, hint: string): ConfigError {
  const field = `vm.lan.${key}`;
  return new ConfigError(`${JSON.stringify(value)} is ${what}`, { field, value, hint });
}
