/**
 * Packets as nflog hands them out and tcpdump writes them: pcap with link type 239, each packet a list of
 * attributes (linux/netfilter/nfnetlink_log.h; https://www.tcpdump.org/linktypes/LINKTYPE_NFLOG.html). Pure.
 */
import { ipv6OfBytes } from '../ipv6-text.ts';

/** What one logged packet says. */
export interface LoggedPacket {
  /** ms since the epoch. */
  readonly timeMs: number;
  readonly prefix: string;
  /** Packet mark. */
  readonly mark: number;
  /** Indices of interfaces; 0: none. */
  readonly inDevice: number;
  readonly outDevice: number;
  /** Undefined: no IP, or not even its header. */
  readonly packet: IpPacket | undefined;
}

/** Of a packet of IPv4 or IPv6. */
export interface IpPacket {
  /** `tcp`, `udp`, `icmp`, `icmpv6`, or the number. */
  readonly protocol: string;
  /** Those of IPv6 as RFC 5952 writes them. */
  readonly from: string;
  readonly to: string;
  /** Undefined: it has none, or they are in another fragment. */
  readonly fromPort: number | undefined;
  readonly toPort: number | undefined;
}

const ATTRIBUTE = { mark: 2, inDevice: 4, outDevice: 5, payload: 9, prefix: 10 } as const;
/** u8 family, u8 version, u16 resource. */
const NFLOG_HEAD_BYTES = 4;
/** More than our rules log of a packet, with its attributes. */
export const MAX_LOGGED_BYTES = 65_536 + 1024;
const IPV6_HEAD_BYTES = 40;
/** Headers that stand before that of TCP or UDP: hop by hop, routing, destination (RFC 8200, 4). */
const EXTENSIONS: readonly number[] = [0, 43, 60];
const FRAGMENT = 44;
const PROTOCOLS: Readonly<Record<number, string>> = {
  1: 'icmp',
  6: 'tcp',
  17: 'udp',
  58: 'icmpv6',
};

/** Reads one packet. Undefined: it is none. */
export function parseNflog(data: Buffer, timeMs: number): LoggedPacket | undefined {
  const found = new Map<number, Buffer>();
  for (let at = NFLOG_HEAD_BYTES; at + 4 <= data.length;) {
    const length = data.readUInt16LE(at); // of the host that logged it: this one
    if (length < 4 || at + length > data.length) return undefined;
    found.set(data.readUInt16LE(at + 2), data.subarray(at + 4, at + length));
    at += (length + 3) & ~3;
  }
  const prefix = found.get(ATTRIBUTE.prefix);
  if (prefix === undefined) return undefined;
  return {
    timeMs,
    prefix: prefix.toString('latin1').replace(/\0.*$/s, ''),
    mark: numberOf(found.get(ATTRIBUTE.mark)),
    inDevice: numberOf(found.get(ATTRIBUTE.inDevice)),
    outDevice: numberOf(found.get(ATTRIBUTE.outDevice)),
    packet: parseIp(found.get(ATTRIBUTE.payload) ?? Buffer.alloc(0)),
  };
}

function numberOf(bytes: Buffer | undefined): number {
  return bytes?.length === 4 ? bytes.readUInt32BE(0) : 0;
}

/** RFC 791, RFC 8200; undefined where it is neither. */
export function parseIp(data: Buffer): IpPacket | undefined {
  const version = data.length === 0 ? 0 : data.readUInt8(0) >> 4;
  if (version === 4 && data.length >= 20) return parseIpv4(data);
  return version === 6 && data.length >= IPV6_HEAD_BYTES ? parseIpv6(data) : undefined;
}

function parseIpv4(data: Buffer): IpPacket {
  const headBytes = (data.readUInt8(0) & 0x0f) * 4;
  const isFirst = (data.readUInt16BE(6) & 0x1fff) === 0;
  return {
    ...transport(data, data.readUInt8(9), isFirst ? headBytes : undefined),
    from: [...data.subarray(12, 16)].join('.'),
    to: [...data.subarray(16, 20)].join('.'),
  };
}

function parseIpv6(data: Buffer): IpPacket {
  const { next, at } = skipExtensions(data);
  return {
    ...transport(data, next, at),
    from: ipv6OfBytes(data.subarray(8, 24)),
    to: ipv6OfBytes(data.subarray(24, 40)),
  };
}

/** What stands behind the extension headers; at no place where that is in another fragment, or cut off. */
function skipExtensions(data: Buffer): { next: number; at: number | undefined } {
  let next = data.readUInt8(6);
  let at = IPV6_HEAD_BYTES;
  while (isExtension(next) && at + 8 <= data.length) {
    const isLater = next === FRAGMENT && (data.readUInt16BE(at + 2) & 0xfff8) !== 0;
    const bytes = next === FRAGMENT ? 8 : (data.readUInt8(at + 1) + 1) * 8;
    next = data.readUInt8(at);
    if (isLater) return { next, at: undefined };
    at += bytes;
  }
  return { next, at };
}

function isExtension(next: number): boolean {
  return next === FRAGMENT || EXTENSIONS.includes(next);
}

/** @param at where its header is; undefined: nowhere here */
function transport(data: Buffer, number: number, at: number | undefined) {
  const hasPorts = (number === 6 || number === 17) && at !== undefined && data.length >= at + 4;
  return {
    protocol: PROTOCOLS[number] ?? String(number),
    fromPort: hasPorts ? data.readUInt16BE(at) : undefined,
    toPort: hasPorts ? data.readUInt16BE(at + 2) : undefined,
  };
}
