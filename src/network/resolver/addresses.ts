/** Ranges of addresses by the names that people gave them. */
import {
  contains,
  parseAddress,
  parseAddress6,
  parseCidr,
  parseCidr6,
  RESERVED_RANGES,
  RESERVED_RANGES6,
  type AddressRange,
} from '../../../nft/index.ts';
import { ConfigError } from '../../errors.ts';
import { ipv6Text } from '../ipv6-text.ts';

/** A range as it was written, e.g. `10.0.0.0/8`. */
export type NamedRange = { readonly cidr: string } & (
  ({ readonly version: 4 } & AddressRange) | ({ readonly version: 6 } & AddressRange<bigint>)
);

/** By which translators (NAT64) put IPv4 addresses into those of IPv6. RFC 6052, 2.1. */
export const NAT64_CIDR = '64:ff9b::/96';

/** Parts of the reserved ranges that people know by name; what is refused is told by these. */
const KNOWN_RANGES6 = ['::/96', '::ffff:0:0/96', NAT64_CIDR, 'fc00::/7', 'fe80::/10', 'ff00::/8'];

/**
 * What answers never hold unless it is allowed by address: what the rules of a VM never open. An answer that
 * points there would turn a name into a way in.
 */
export const NEVER_RANGES: readonly NamedRange[] = [
  ...RESERVED_RANGES,
  ...KNOWN_RANGES6,
  ...RESERVED_RANGES6,
].map((cidr) => parseRange(cidr, 'RESERVED_RANGES'));

/**
 * Reads `a.b.c.d/n`, `2001:db8::/n`, or a single address.
 *
 * @param field where it was given, for the error
 * @throws {@link ConfigError} where it is neither
 */
export function parseRange(text: string, field: string): NamedRange {
  const cidr = text.trim();
  const v4 = parseCidr(cidr);
  if (v4 !== undefined) return { cidr, version: 4, first: v4.first, last: v4.last };
  const v6 = parseCidr6(cidr);
  if (v6 !== undefined) return { cidr, version: 6, first: v6.first, last: v6.last };
  throw new ConfigError(`${field}: ${JSON.stringify(text)} is no range of addresses`, {
    field,
    value: text,
    hint: 'write an address or a network by its first address, such as 192.168.1.10, 10.1.0.0/16 or fd00:1::/64',
  });
}

/** The range of the list that holds the address, if one does. */
export function rangeOf(address: string, ranges: readonly NamedRange[]): NamedRange | undefined {
  const v6 = parseAddress6(address);
  if (v6 !== undefined) {
    const one = { first: v6, last: v6 };
    return ranges.find((range) => range.version === 6 && contains(range, one));
  }
  const v4 = parseAddress(address) ?? 0; // what is none is of 0.0.0.0/8, which nothing opens
  const one = { first: v4, last: v4 };
  return ranges.find((range) => range.version === 4 && contains(range, one));
}

/** The IPv4 address at the end of one of IPv6. @param address is one */
export function ipv4Within(address: string): string {
  const last = Number((parseAddress6(address) ?? 0n) & 0xffff_ffffn);
  return [24, 16, 8, 0].map((bits) => (last >>> bits) & 0xff).join('.');
}

/** The address that a name of a reverse lookup stands for; missing low parts are 0. RFC 1035, 3.5; RFC 3596, 2.5. */
export function reverseAddress(name: string): string | undefined {
  const [, of4, of6] = /^(?:(.+)\.in-addr|(.+)\.ip6)\.arpa$/.exec(name) ?? [];
  if (of6 !== undefined) {
    const nibbles = of6.split('.').reverse();
    if (nibbles.length > 32 || !nibbles.every((nibble) => /^[0-9a-f]$/.test(nibble)))
      return undefined;
    const groups = nibbles.join('').padEnd(32, '0').match(/.{4}/g) ?? [];
    return ipv6Text(groups.join(':'));
  }
  if (of4 === undefined) return undefined;
  const bytes = of4.split('.').reverse();
  while (bytes.length < 4) bytes.push('0');
  const address = bytes.join('.');
  return parseAddress(address) === undefined ? undefined : address;
}
