/**
 * Where the tap of a VM is and what its two ends are called: everything follows from one number. Pure.
 *
 * Each tap is a network of two addresses (RFC 3021): the even one is the host's, the odd one the guest's. VMs
 * share no network, so that they meet only in the host's forwarding, which denies it.
 */
import { contains, parseCidr, type VmAddresses6 } from '../../nft/index.ts';
import { ConfigError } from '../errors.ts';
import { ulaPairAt, type UlaPool } from './ula.ts';

/** Both ends of a tap. */
export interface Endpoint {
  readonly index: number;
  /** The interface on the host. */
  readonly tap: string;
  readonly guestAddress: string;
  /** The host's address on the tap. */
  readonly gatewayAddress: string;
  /** In IPv6, where it has any. */
  readonly v6?: VmAddresses6 | undefined;
}

/** Addresses for all VMs of a host. */
export interface AddressPool {
  readonly cidr: string;
  /** First address as a number. */
  readonly first: number;
  /** How many taps it has room for. */
  readonly capacity: number;
}

/** Bits of the network of one tap. */
export const TAP_PREFIX = 31;
/** Names of our taps; a number follows. Linux allows 15 characters (IFNAMSIZ). */
export const TAP_NAME = 'qmpa';
/** The MAC address of the host's end of every tap: no two of them are in one network. */
export const GATEWAY_MAC = '02:71:6d:70:61:01';
/** RFC 1918, and rarely used: docker and Kubernetes take other parts of it. */
export const DEFAULT_POOL = '10.210.0.0/16';

/** What a pool may be a part of: RFC 1918, and carrier-grade NAT (RFC 6598). */
const PRIVATE = ['10.0.0.0/8', '172.16.0.0/12', '192.168.0.0/16', '100.64.0.0/10']
  .map(parseCidr)
  .filter((range) => range !== undefined);
/** A pool has room for 2 taps at least, and 2^15 are more than a host can run. */
const POOL_PREFIX = { min: 15, max: 29 };

/** @throws ConfigError field `network.pool` */
export function parsePool(cidr: string): AddressPool {
  const range = parseCidr(cidr);
  if (
    range !== undefined &&
    range.length >= POOL_PREFIX.min &&
    range.length <= POOL_PREFIX.max &&
    isWithinPrivate(cidr)
  ) {
    return { cidr, first: range.first, capacity: (range.last - range.first + 1) / 2 };
  }
  throw new ConfigError(`${JSON.stringify(cidr)} is no pool of addresses for VMs`, {
    field: 'network.pool',
    value: cidr,
    hint: `Give a private IPv4 network of /${POOL_PREFIX.min} to /${POOL_PREFIX.max} by its first address, e.g. ${DEFAULT_POOL}.`,
  });
}

/** Whether a network is a part of those that a pool may be a part of. */
export function isWithinPrivate(cidr: string): boolean {
  const range = parseCidr(cidr);
  return range !== undefined && PRIVATE.some((whole) => contains(whole, range));
}

/**
 * The tap with this number. The first is 1: no host likes an address that ends in .0.
 * @param ula where it has IPv6 addresses from. Default: it has none
 */
export function endpointAt(pool: AddressPool, index: number, ula?: UlaPool): Endpoint {
  const gateway = pool.first + 2 * index;
  return {
    index,
    tap: `${TAP_NAME}${index}`,
    gatewayAddress: dotted(gateway),
    guestAddress: dotted(gateway + 1),
    ...(ula === undefined ? {} : { v6: ulaPairAt(ula, index) }),
  };
}

/** The first of `NAME1`, `NAME2`, … that no interface has. */
export function firstName(name: string, interfaces: Iterable<string>): string {
  const taken = new Set(interfaces);
  for (let index = 1; ; index++) {
    if (!taken.has(`${name}${index}`)) return `${name}${index}`;
  }
}

/** The lowest number that no interface has; undefined where all are taken. */
export function firstFree(
  pool: Pick<AddressPool, 'capacity'>,
  interfaces: Iterable<string>,
): number | undefined {
  const taken = new Set(interfaces);
  for (let index = 1; index < pool.capacity; index++) {
    if (!taken.has(`${TAP_NAME}${index}`)) return index;
  }
  return undefined;
}

function dotted(address: number): string {
  return [24, 16, 8, 0].map((shift) => (address >>> shift) & 0xff).join('.');
}
