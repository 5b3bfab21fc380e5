/** IPv4 ranges, by value. */
import { isIPv4 } from 'node:net';
import { RESERVED_RANGES } from '../../../nft/index.ts';
import { ConfigError } from '../../errors.ts';

/** A range of IPv4 addresses. */
export interface AddressRange {
  /** As it was written, e.g. `10.0.0.0/8`. */
  readonly cidr: string;
  readonly base: number;
  readonly mask: number;
}

/**
 * What answers never hold unless it is allowed by address: what the rules of a VM never open. An answer that
 * points there would turn a name into a way in.
 */
export const NEVER_RANGES: readonly AddressRange[] = RESERVED_RANGES.map((cidr) =>
  parseRange(cidr, 'RESERVED_RANGES'),
);

/**
 * Reads `a.b.c.d/n`, or a single address.
 *
 * @param field where it was given, for the error
 * @throws {@link ConfigError} where it is neither
 */
export function parseRange(text: string, field: string): AddressRange {
  const [address = '', bits = '32', ...rest] = text.trim().split('/');
  if (rest.length > 0 || !isIPv4(address) || !/^\d{1,2}$/.test(bits) || Number(bits) > 32) {
    throw new ConfigError(`${field}: ${JSON.stringify(text)} is no IPv4 range`, {
      field,
      value: text,
      hint: 'write an address or a CIDR, such as 192.168.1.10 or 10.1.0.0/16',
    });
  }
  const mask = Number(bits) === 0 ? 0 : (-1 << (32 - Number(bits))) >>> 0;
  const base = (toNumber(address) & mask) >>> 0;
  return { cidr: text.trim(), base, mask };
}

/** The range of the list that holds the address, if one does. */
export function rangeOf(
  address: string,
  ranges: readonly AddressRange[],
): AddressRange | undefined {
  const value = toNumber(address);
  return ranges.find((range) => (value & range.mask) >>> 0 === range.base);
}

/** The address that a name below in-addr.arpa stands for; missing low bytes are 0. RFC 1035, 3.5. */
export function reverseAddress(name: string): string | undefined {
  const suffix = '.in-addr.arpa';
  if (!name.endsWith(suffix)) return undefined;
  const bytes = name.slice(0, -suffix.length).split('.').reverse();
  while (bytes.length < 4) bytes.push('0');
  const address = bytes.join('.');
  return isIPv4(address) ? address : undefined;
}

function toNumber(address: string): number {
  return address.split('.').reduce((value, byte) => (value * 256 + Number(byte)) >>> 0, 0);
}
