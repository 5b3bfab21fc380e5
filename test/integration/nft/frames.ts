/** Ethernet frames byte by byte, for what no socket would send. */
import { parseAddress6 } from '../../../nft/index.ts';

const bytes = (...values: number[]): Buffer => Buffer.from(values);
const u16 = (value: number): Buffer => bytes((value >> 8) & 255, value & 255);
const mac = (text: string): Buffer => Buffer.from(text.replaceAll(':', ''), 'hex');
/** Of either family. */
const address = (text: string): Buffer =>
  text.includes(':')
    ? Buffer.from(parseAddress6(text)!.toString(16).padStart(32, '0'), 'hex')
    : bytes(...text.split('.').map(Number));

/** RFC 1071. */
function checksum(data: Buffer): Buffer {
  let sum = 0;
  for (let at = 0; at < data.length; at += 2) sum += (data[at]! << 8) | (data[at + 1] ?? 0);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >> 16);
  return u16(~sum & 0xffff);
}

export interface Ends {
  /** MAC of the sender, and of who it is for. */
  from: string;
  to: string;
}

/** Tags are pairs of type and VID, outermost first. */
export function ethernet(
  { from, to }: Ends,
  type: number,
  payload: Buffer,
  tags: readonly [type: number, vid: number][] = [],
): string {
  const tagged = Buffer.concat(tags.flatMap(([tagType, vid]) => [u16(tagType), u16(vid)]));
  return Buffer.concat([mac(to), mac(from), tagged, u16(type), payload]).toString('hex');
}

export interface IpOptions {
  source: string;
  destination: string;
  protocol: number;
  /** Offset and flags. */
  fragment?: number;
  ttl?: number;
  /** Multiple of four bytes. */
  options?: Buffer;
  version?: number;
}

export function ipv4(o: IpOptions, payload: Buffer): Buffer {
  const options = o.options ?? Buffer.alloc(0);
  const length = 20 + options.length;
  const before = Buffer.concat([
    bytes(((o.version ?? 4) << 4) | (length / 4), 0),
    u16(length + payload.length),
    u16(4711),
    u16(o.fragment ?? 0),
    bytes(o.ttl ?? 64, o.protocol),
  ]);
  const ends = Buffer.concat([address(o.source), address(o.destination), options]);
  const sum = checksum(Buffer.concat([before, u16(0), ends]));
  return Buffer.concat([before, sum, ends, payload]);
}

/** The first bytes of an IPv4 packet, whose header says that there are no more. */
export function shortened(packet: Buffer, length: number): Buffer {
  const short = Buffer.from(packet.subarray(0, length));
  short.writeUInt16BE(length, 2);
  short.writeUInt16BE(0, 10);
  checksum(short.subarray(0, (short.readUInt8(0) & 0x0f) * 4)).copy(short, 10);
  return short;
}

type Addresses = Pick<IpOptions, 'source' | 'destination'>;

/** The pseudo header of IPv6 has its numbers in 32 bits and the other way round, which adds up to the same (RFC 8200). */
function withChecksum(o: Addresses, protocol: number, segment: Buffer, at: number): Buffer {
  const pseudo = Buffer.concat([
    address(o.source),
    address(o.destination),
    bytes(0, protocol),
    u16(segment.length),
  ]);
  checksum(Buffer.concat([pseudo, segment])).copy(segment, at);
  return segment;
}

export function udp(o: Addresses, from: number, to: number, text: string): Buffer {
  const data = Buffer.from(text);
  const segment = Buffer.concat([u16(from), u16(to), u16(8 + data.length), u16(0), data]);
  return withChecksum(o, 17, segment, 6);
}

export const SYN = 2;
export const ACK = 16;
export const RST = 4;

export function tcp(o: Addresses, from: number, to: number, flags: number, text = ''): Buffer {
  const segment = Buffer.concat([
    u16(from),
    u16(to),
    Buffer.alloc(8),
    bytes(5 << 4, flags),
    u16(1000),
    u16(0),
    u16(0),
    Buffer.from(text),
  ]);
  return withChecksum(o, 6, segment, 16);
}

export function icmp(type: number, code: number, rest: Buffer): Buffer {
  const body = Buffer.concat([bytes(type, code), u16(0), rest]);
  checksum(body).copy(body, 2);
  return body;
}

/** Destination unreachable with code 4 (fragmentation needed), quoting a packet. */
export function fragmentationNeeded(quoted: Buffer, mtu = 600): Buffer {
  return icmp(3, 4, Buffer.concat([u16(0), u16(mtu), quoted.subarray(0, 28)]));
}

export function arp(o: {
  operation: number;
  senderMac: string;
  sender: string;
  target: string;
  hardware?: number;
}): Buffer {
  return Buffer.concat([
    u16(o.hardware ?? 1),
    u16(0x0800),
    bytes(6, 4),
    u16(o.operation),
    mac(o.senderMac),
    address(o.sender),
    Buffer.alloc(6),
    address(o.target),
  ]);
}

export interface Ip6Options extends Addresses {
  /** Of the header that follows. */
  next: number;
  hopLimit?: number;
  /** Of what follows, as the header says. Default: as it is. */
  length?: number;
  /** The first four bytes: version, traffic class, flow label. */
  first?: number;
}

export function packet6(o: Ip6Options, payload: Buffer): Buffer {
  const first = Buffer.alloc(4);
  first.writeUInt32BE(o.first ?? 0x60000000);
  const rest = [u16(o.length ?? payload.length), bytes(o.next, o.hopLimit ?? 64)];
  return Buffer.concat([first, ...rest, address(o.source), address(o.destination), payload]);
}

/** An extension header of eight bytes or more, of those that tell their length: hop-by-hop, routing, destination options. */
export function extension(next: number, content: Buffer): Buffer {
  return Buffer.concat([bytes(next, (content.length + 2) / 8 - 1), content]);
}

/** @param offset and flags */
export function fragmentHeader(next: number, offset: number): Buffer {
  return Buffer.concat([bytes(next, 0), u16(offset), u16(0), u16(4711)]);
}

export function icmp6(o: Addresses, type: number, code: number, rest: Buffer): Buffer {
  return withChecksum(o, 58, Buffer.concat([bytes(type, code), u16(0), rest]), 2);
}

/** Quotes a packet. */
export function packetTooBig(o: Addresses, quoted: Buffer, mtu = 1280): Buffer {
  return icmp6(o, 2, 0, Buffer.concat([u16(0), u16(mtu), quoted]));
}

/** An address as its bytes, for what discovers neighbours. */
export const address6 = (text: string): Buffer => address(text);

/** An IPv6 packet with a UDP datagram, from a global address. */
export function ipv6(destination: string, text: string, nextHeader = 17): Buffer {
  const data = Buffer.concat([
    u16(1000),
    u16(443),
    u16(8 + text.length),
    u16(0),
    Buffer.from(text),
  ]);
  return Buffer.concat([
    bytes(0x60, 0, 0, 0),
    u16(data.length),
    bytes(nextHeader, 64),
    Buffer.from('20010db8000000000000000000000002', 'hex'),
    Buffer.from(destination, 'hex'),
    data,
  ]);
}
