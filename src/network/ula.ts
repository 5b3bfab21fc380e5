/**
 * IPv6 addresses of VMs: a prefix that this host has made up for itself (RFC 4193), of which each tap has two addresses,
 * by the same number as its IPv4 ones (endpoint.ts). All pure, but for the choice of a prefix.
 */
import { randomBytes } from 'node:crypto';
import { contains, parseCidr6, type VmAddresses6 } from '../../nft/index.ts';
import { ConfigError } from '../errors.ts';
import { ipv6OfBytes } from './ipv6-text.ts';

/** IPv6 addresses for all VMs of a host. */
export interface UlaPool {
  /** As RFC 5952 writes it. */
  readonly cidr: string;
  /** First address as a number. */
  readonly first: bigint;
  /** How many taps it has room for. */
  readonly capacity: number;
}

/** Bits of the network of one tap: two addresses, none of which is the routers' (RFC 6164). */
export const TAP_PREFIX6 = 127;
const BITS = 128;
const UNIQUE_LOCAL = parseCidr6('fc00::/7');
/** 40 bits of one's own, and 2^15 taps at least. */
const PREFIX = { min: 48, max: 112 };
/** More taps than any pool of IPv4 addresses has room for. */
const MAX_CAPACITY = 2 ** 16;

/** @throws ConfigError field `network.ipv6` */
export function parseUla(cidr: string): UlaPool {
  const range = parseCidr6(cidr);
  if (
    range !== undefined &&
    range.length >= PREFIX.min &&
    range.length <= PREFIX.max &&
    UNIQUE_LOCAL !== undefined &&
    contains(UNIQUE_LOCAL, range)
  ) {
    const { first, length } = range;
    const capacity = Math.min(2 ** (BITS - length - 1), MAX_CAPACITY);
    return { cidr: `${textOf(first)}/${length}`, first, capacity };
  }
  throw new ConfigError(`${JSON.stringify(cidr)} is no prefix of IPv6 addresses for VMs`, {
    field: 'network.ipv6',
    value: cidr,
    hint: `Give a unique local one (fc00::/7) of /${PREFIX.min} to /${PREFIX.max} by its first address, e.g. fd12:3456:789a::/64; or none, for a random one.`,
  });
}

/** A prefix that hardly anybody else has: 40 random bits, the first network (RFC 4193, 3.2). */
export function randomUla(): string {
  const bits = BigInt(`0xfd${randomBytes(5).toString('hex')}`);
  return `${textOf(bits << 80n)}/64`;
}

/** Both ends of the tap with this number. */
export function ulaPairAt({ first }: UlaPool, index: number): VmAddresses6 {
  const gateway = first + 2n * BigInt(index);
  return { gatewayAddress: textOf(gateway), guestAddress: textOf(gateway + 1n) };
}

function textOf(address: bigint): string {
  return ipv6OfBytes(Buffer.from(address.toString(16).padStart(BITS / 4, '0'), 'hex'));
}
