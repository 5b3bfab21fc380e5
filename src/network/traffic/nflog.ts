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

const FILE_HEAD_BYTES = 24;
const PACKET_HEAD_BYTES = 16;
/** Little-endian, as tcpdump writes on x86: with microseconds, or with nanoseconds. */
const MAGIC = { micro: 0xa1b2c3d4, nano: 0xa1b23c4d } as const;
/** More than our rules log of a packet. */
const MAX_PACKET_BYTES = 65_536 + 1024;

/** Takes a pcap stream apart, whatever its chunks. */
export class PcapReader {
  #rest: Buffer = Buffer.alloc(0);
  #perMs = 0;

  /**
   * @returns the packets that are whole now
   * @throws Error it is no pcap stream
   */
  push(chunk: Buffer): { data: Buffer; timeMs: number }[] {
    this.#rest = this.#rest.length === 0 ? chunk : Buffer.concat([this.#rest, chunk]);
    const packets: { data: Buffer; timeMs: number }[] = [];
    const begin = this.#head();
    if (begin === undefined) return packets;
    let at = begin;
    while (at + PACKET_HEAD_BYTES <= this.#rest.length) {
      const length = this.#rest.readUInt32LE(at + 8);
      if (length > MAX_PACKET_BYTES) throw new Error(`a packet of ${length} bytes in the log`);
      const end = at + PACKET_HEAD_BYTES + length;
      if (end > this.#rest.length) break;
      const timeMs =
        this.#rest.readUInt32LE(at) * 1000 + this.#rest.readUInt32LE(at + 4) / this.#perMs;
      packets.push({ data: this.#rest.subarray(at + PACKET_HEAD_BYTES, end), timeMs });
      at = end;
    }
    this.#rest = this.#rest.subarray(at);
    return packets;
  }

  /** Where packets begin in what is there. */
  #head(): number | undefined {
    if (this.#perMs !== 0) return 0;
    if (this.#rest.length < FILE_HEAD_BYTES) return undefined;
    const magic = this.#rest.readUInt32LE(0);
    if (magic === MAGIC.micro) this.#perMs = 1e3;
    else if (magic === MAGIC.nano) this.#perMs = 1e6;
    else throw new Error('no pcap stream');
    return FILE_HEAD_BYTES;
  }
}
