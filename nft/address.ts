/** Addresses and CIDRs of both families, as numbers: those of IPv4 as `number`, of IPv6 as `bigint`. */
import { isIPv6 } from 'node:net';

/** Version of the Internet Protocol. */
export type IpVersion = 4 | 6;

/** Addresses of one family from the first to the last, both included. */
export interface AddressRange<N extends number | bigint = number> {
  readonly first: N;
  readonly last: N;
}

/** A range with its address as it was written, and the length of its prefix. */
export type Cidr<N extends number | bigint = number> = AddressRange<N> & {
  readonly address: string;
  readonly length: number;
};

/** An IPv4 address as a number; undefined where it is none. No short forms, no octal. */
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

/** A CIDR or an address of IPv4; undefined where it is neither, or has bits behind its prefix. */
export function parseCidr(text: string): Cidr | undefined {
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

/**
 * An IPv6 address as a number; undefined where it is none. In all forms of RFC 4291, section 2.2; without a zone
 * (`%eth0`), which says something about one host only.
 */
export function parseAddress6(text: string): bigint | undefined {
  if (!isIPv6(text) || text.includes('%')) return undefined;
  const [head = '', tail] = withoutDots(text).split('::');
  const groups = (half: string) => (half === '' ? [] : half.split(':'));
  const [before, after] = [groups(head), groups(tail ?? '')];
  const zeros = Array<string>(8 - before.length - after.length).fill('0');
  return [...before, ...zeros, ...after].reduce(
    (value, group) => (value << 16n) | BigInt(`0x${group}`),
    0n,
  );
}

/** With the last 32 bits as two groups, where they are written as an IPv4 address. */
function withoutDots(text: string): string {
  const at = text.lastIndexOf(':') + 1;
  const last = parseAddress(text.slice(at));
  if (last === undefined) return text;
  return `${text.slice(0, at)}${(last >>> 16).toString(16)}:${(last & 0xffff).toString(16)}`;
}

/** A CIDR or an address of IPv6; undefined where it is neither, or has bits behind its prefix. */
export function parseCidr6(text: string): Cidr<bigint> | undefined {
  const [address = '', lengthText = '128', ...rest] = text.split('/');
  const first = parseAddress6(address);
  if (first === undefined || rest.length > 0 || !/^(0|[1-9]\d{0,2})$/.test(lengthText))
    return undefined;
  const length = Number(lengthText);
  if (length > 128) return undefined;
  const size = 1n << BigInt(128 - length);
  if (first % size !== 0n) return undefined;
  return { address, length, first, last: first + size - 1n };
}

/** Of which family an address or CIDR is; undefined where it is none. */
export function versionOf(cidr: string): IpVersion | undefined {
  if (parseCidr(cidr) !== undefined) return 4;
  return parseCidr6(cidr) === undefined ? undefined : 6;
}

/** Whether two ranges have an address in common. */
export function overlaps<N extends number | bigint>(
  one: AddressRange<N>,
  other: AddressRange<N>,
): boolean {
  return one.first <= other.last && other.first <= one.last;
}

/** The first of some CIDRs of either family that has an address in common with this one; none is of another family. */
export function firstMeeting(cidr: string, others: readonly string[]): string | undefined {
  const [v4, v6] = [parseCidr(cidr), parseCidr6(cidr)];
  return others.find((other) => meets(v4, parseCidr(other)) || meets(v6, parseCidr6(other)));
}

function meets<N extends number | bigint>(
  one: AddressRange<N> | undefined,
  other: AddressRange<N> | undefined,
): boolean {
  return one !== undefined && other !== undefined && overlaps(one, other);
}

/** Whether all of `inner` is in `outer`. */
export function contains<N extends number | bigint>(
  outer: AddressRange<N>,
  inner: AddressRange<N>,
): boolean {
  return outer.first <= inner.first && inner.last <= outer.last;
}

/**
 * CIDRs of one family without those that lie in another: nft 1.0.6 refuses a set whose intervals overlap.
 * @returns in the order of addresses
 */
export function withoutNested(
  cidrs: readonly string[],
  version: IpVersion = 4,
): { address: string; length: number }[] {
  return version === 4 ? outermost(cidrs.map(parseCidr)) : outermost(cidrs.map(parseCidr6));
}

function outermost<N extends number | bigint>(
  cidrs: readonly (Cidr<N> | undefined)[],
): { address: string; length: number }[] {
  const ranges = cidrs
    .filter((range) => range !== undefined)
    .sort((one, other) => compare(one.first, other.first) || compare(other.last, one.last));
  const kept: typeof ranges = [];
  for (const range of ranges) {
    const last = kept.at(-1);
    if (last === undefined || !contains(last, range)) kept.push(range);
  }
  return kept.map(({ address, length }) => ({ address, length }));
}

function compare<N extends number | bigint>(one: N, other: N): number {
  return one < other ? -1 : Number(one > other);
}
