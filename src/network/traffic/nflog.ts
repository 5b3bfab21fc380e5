/**
 * Packets as nflog hands them out and tcpdump writes them: pcap with link type 239, each packet a list of
 * attributes (linux/netfilter/nfnetlink_log.h; https://www.tcpdump.org/linktypes/LINKTYPE_NFLOG.html). Pure.
 */

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
  /** Undefined: no IPv4. */
  readonly packet: IpPacket | undefined;
}

/** Of an IPv4 packet. */
export interface IpPacket {
  /** `tcp`, `udp`, `icmp`, or the number. */
  readonly protocol: string;
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
const PROTOCOLS: Readonly<Record<number, string>> = { 1: 'icmp', 6: 'tcp', 17: 'udp' };

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

/** RFC 791; undefined where it is no IPv4. */
export function parseIp(data: Buffer): IpPacket | undefined {
  if (data.length < 20 || data.readUInt8(0) >> 4 !== 4) return undefined;
  const headBytes = (data.readUInt8(0) & 0x0f) * 4;
  const number = data.readUInt8(9);
  const isFirst = (data.readUInt16BE(6) & 0x1fff) === 0;
  const hasPorts = (number === 6 || number === 17) && isFirst && data.length >= headBytes + 4;
  return {
    protocol: PROTOCOLS[number] ?? String(number),
    from: [...data.subarray(12, 16)].join('.'),
    to: [...data.subarray(16, 20)].join('.'),
    fromPort: hasPorts ? data.readUInt16BE(headBytes) : undefined,
    toPort: hasPorts ? data.readUInt16BE(headBytes + 2) : undefined,
  };
}
