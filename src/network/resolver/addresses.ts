/** IPv4 ranges by the names that people gave them. */
import {
  contains,
  parseAddress,
  parseCidr,
  RESERVED_RANGES,
  type AddressRange,
} from '../../../nft/index.ts';
import { ConfigError } from '../../errors.ts';

/** A range as it was written, e.g. `10.0.0.0/8`. */
export interface NamedRange extends AddressRange {
  readonly cidr: string;
}

/**
 * What answers never hold unless it is allowed by address: what the rules of a VM never open. An answer that
 * points there would turn a name into a way in.
 */
export const NEVER_RANGES: readonly NamedRange[] = RESERVED_RANGES.map((cidr) =>
  parseRange(cidr, 'RESERVED_RANGES'),
);

/**
 * Reads `a.b.c.d/n`, or a single address.
 *
 * @param field where it was given, for the error
 * @throws {@link ConfigError} where it is neither
 */
export function parseRange(text: string, field: string): NamedRange {
  const cidr = text.trim();
  const range = parseCidr(cidr);
  if (range !== undefined) return { cidr, first: range.first, last: range.last };
  throw new ConfigError(`${field}: ${JSON.stringify(text)} is no IPv4 range`, {
    field,
    value: text,
    hint: 'write an address or a network by its first address, such as 192.168.1.10 or 10.1.0.0/16',
  });
}

/** The range of the list that holds the address, if one does. */
export function rangeOf(address: string, ranges: readonly NamedRange[]): NamedRange | undefined {
  const value = parseAddress(address) ?? 0; // what is none is of 0.0.0.0/8, which nothing opens
  const one = { first: value, last: value };
  return ranges.find((range) => contains(range, one));
}

/** The address that a name below in-addr.arpa stands for; missing low bytes are 0. RFC 1035, 3.5. */
export function reverseAddress(name: string): string | undefined {
  const suffix = '.in-addr.arpa';
  if (!name.endsWith(suffix)) return undefined;
  const bytes = name.slice(0, -suffix.length).split('.').reverse();
  while (bytes.length < 4) bytes.push('0');
  const address = bytes.join('.');
  return parseAddress(address) === undefined ? undefined : address;
}
