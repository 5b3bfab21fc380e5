/** What a VM on a bridge is called on its LAN. Its guest has no DHCP client, so somebody has to say. Pure. */
import type { NetworkUp } from '../../guest-agent/protocol.ts';
import { contains, parseAddress, parseCidr, UNROUTABLE_RANGES } from '../../nft/index.ts';
import { checkOptionShapes, type OptionShapes } from '../config/check-options.ts';
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
const OPTIONS: OptionShapes<LanOptions> = {
  address: 'text',
  gateway: 'text',
  dns: 'texts',
};

/** As many as resolv.conf(5) knows. */
const MAX_DNS = 3;
/** A network has another address at least. */
const MAX_LENGTH = 31;
/** From this length on a network has no address of its own, and none for all (RFC 3021). */
const POINT_TO_POINT = 31;
const FOR_ALL = 'the network’s own address, or the one for all in it';
const BETWEEN = 'Give one of the addresses between the first and the last of the network.';

/**
 * What the guest is told.
 * @throws ConfigError fields `vm.lan.address`, `vm.lan.gateway`, `vm.lan.dns`
 */
export function parseLan(o: LanOptions): Omit<NetworkUp, 'mac'> {
  checkOptionShapes(o, OPTIONS, { section: 'vm.lan', noun: 'option' });
  const { gateway, dns = [] } = o;
  const text = String(o.address); // JavaScript may forget it
  const [address = '', lengthText = ''] = text.split('/');
  const host = parseAddress(address);
  const prefix = /^\d{1,2}$/.test(lengthText) ? Number(lengthText) : 0;
  if (host === undefined || prefix < 1 || prefix > MAX_LENGTH || text.split('/').length !== 2) {
    throw wrong('address', text, 'no IPv4 address with its network', 'Write it as 192.0.2.5/24.');
  }
  const size = 2 ** (32 - prefix);
  const first = host - (host % size);
  const isForAll = (one: number) =>
    prefix < POINT_TO_POINT && (one === first || one === first + size - 1);
  checkMachine('address', text, host);
  if (isForAll(host)) throw wrong('address', text, FOR_ALL, BETWEEN);
  const next = gateway === undefined ? undefined : parseAddress(gateway);
  if (gateway !== undefined) {
    if (!(next !== undefined && next >= first && next < first + size))
      throw wrong('gateway', gateway, `no address of the network of ${text}`, 'Give the router’s.');
    if (next === host)
      throw wrong('gateway', gateway, 'the VM itself', 'Give the router’s address.');
    if (isForAll(next)) throw wrong('gateway', gateway, FOR_ALL, 'Give the router’s address.');
  }
  if (dns.length > MAX_DNS)
    throw wrong('dns', dns, `more than ${MAX_DNS} name servers`, `Give ${MAX_DNS} at most.`);
  for (const server of dns) {
    const at = parseAddress(server);
    if (at === undefined) throw wrong('dns', server, 'no IPv4 address', 'Give a name server’s.');
    checkMachine('dns', server, at);
    if (isForAll(at)) throw wrong('dns', server, FOR_ALL, 'Give a name server’s address.');
  }
  return { up: true, address, prefix, ...(gateway === undefined ? {} : { gateway }), dns };
}

/** Of loopback, multicast, broadcast and the like nothing ever leaves a guest, and nobody is met there. */
function checkMachine(key: keyof LanOptions, value: string, address: number): void {
  const one = { first: address, last: address };
  const found = UNROUTABLE_RANGES.find((cidr) => contains(parseCidr(cidr)!, one));
  if (found === undefined) return;
  const what = `no address that one machine has on a LAN: it is of ${found}`;
  throw wrong(key, value, what, 'Give one such as 192.0.2.5.');
}

function wrong(key: keyof LanOptions, value: unknown, what: string, hint: string): ConfigError {
  const field = `vm.lan.${key}`;
  return new ConfigError(`${JSON.stringify(value)} is ${what}`, { field, value, hint });
}
