/** IPv4 addresses and CIDRs, as numbers. */

/** Addresses from the first to the last, both included. */
export interface AddressRange {
  readonly first: number;
  readonly last: number;
}

/** An address as a number; undefined where it is none. No short forms, no octal. */
export function parseAddress(text: string): number | undefined {
  const parts = text.split('.');
  if (parts.length !== 4) return undefined;
  let value = 0;
  for (const part of parts) {
    if (!/^(0|[1-9]\d{0,2})$/.test(part) || Number(part) > 255) return undefined;
    value = value * 256 + Number(part);
  }
  return value;
}

/** A CIDR or an address; undefined where it is neither, or has bits behind its prefix. */
export function parseCidr(
  text: string,
): (AddressRange & { address: string; length: number }) | undefined {
  const [address = '', lengthText = '32', ...rest] = text.split('/');
  const first = parseAddress(address);
  if (first === undefined || rest.length > 0 || !/^(0|[1-9]\d?)$/.test(lengthText))
    return undefined;
  const length = Number(lengthText);
  if (length > 32) return undefined;
  const size = 2 ** (32 - length);
  if (first % size !== 0) return undefined;
  return { address, length, first, last: first + size - 1 };
}

/** Whether two ranges have an address in common. */
export function overlaps(one: AddressRange, other: AddressRange): boolean {
  return one.first <= other.last && other.first <= one.last;
}

/** Whether all of `inner` is in `outer`. */
export function contains(outer: AddressRange, inner: AddressRange): boolean {
  return outer.first <= inner.first && inner.last <= outer.last;
}

/**
 * CIDRs without those that lie in another: nft 1.0.6 refuses a set whose intervals overlap.
 * @returns in the order of addresses
 */
export function withoutNested(cidrs: readonly string[]): { address: string; length: number }[] {
  const ranges = cidrs
    .map(parseCidr)
    .filter((range) => range !== undefined)
    .sort((one, other) => one.first - other.first || other.last - one.last);
  const kept: typeof ranges = [];
  for (const range of ranges) {
    const last = kept.at(-1);
    if (last === undefined || !contains(last, range)) kept.push(range);
  }
  return kept.map(({ address, length }) => ({ address, length }));
}
