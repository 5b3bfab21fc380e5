/**
 * Messages of rtnetlink(7), by which the kernel's network is set up. Pure: bytes in, bytes out.
 * Layouts: linux/netlink.h, linux/rtnetlink.h, linux/if_link.h, linux/if_addr.h, linux/neighbour.h.
 */
import { addressBytes, isV6Bytes } from './ip-address.ts';

const NLMSG_ERROR = 2;
const NLMSG_DONE = 3;
const RTM_NEWLINK = 16;
const RTM_NEWADDR = 20;
const RTM_DELADDR = 21;
const RTM_GETADDR = 22;
const RTM_NEWROUTE = 24;
const RTM_NEWNEIGH = 28;

const NLM_F_REQUEST = 0x1;
const NLM_F_ACK = 0x4;
const NLM_F_REPLACE = 0x100;
const NLM_F_DUMP = 0x300;
const NLM_F_CREATE = 0x400;

const AF_UNSPEC = 0;
const AF_INET = 2;
const AF_INET6 = 10;
const IFF_UP = 1;
const IFLA_ADDRESS = 1;
const IFLA_MTU = 4;
/** The peer's address of a point-to-point link, else the same as {@link IFA_LOCAL}. */
const IFA_ADDRESS = 1;
const IFA_LOCAL = 2;
const IFA_BROADCAST = 4;
/** It is used at once: nobody is asked whether he has it (RFC 4862, 5.4). */
const IFA_F_NODAD = 0x02;
const RT_TABLE_MAIN = 254;
const RTPROT_STATIC = 4;
const RT_SCOPE_UNIVERSE = 0;
const RTN_UNICAST = 1;
/** The gateway is reached by the interface, whatever the addresses say. */
const RTNH_F_ONLINK = 4;
const RTA_OIF = 4;
const RTA_GATEWAY = 5;
const NUD_PERMANENT = 0x80;
const NDA_DST = 1;
const NDA_LLADDR = 2;

/** `struct nlmsghdr`: length, type, flags, sequence, port. */
const HEADER_BYTES = 16;
const ALIGN = 4;
/** Longest prefix of an IPv4 network that has a broadcast address (RFC 3021). */
const MAX_BROADCAST_PREFIX = 30;

/** A message without its sequence number: see {@link batch}. */
export interface NetlinkMessage {
  readonly type: number;
  readonly flags: number;
  readonly body: Buffer;
}

/** An address of an interface, as the kernel lists it. */
export interface InterfaceAddress {
  readonly index: number;
  readonly prefix: number;
  readonly local: Buffer;
  readonly address: Buffer;
}

/** Takes the interface down: the kernel drops its routes and neighbours then. */
export function linkDown(index: number): NetlinkMessage {
  return { type: RTM_NEWLINK, flags: 0, body: linkBody(index, 0) };
}

/** Brings the interface up, after what else is given has been set. */
export function linkUp(
  index: number,
  { mac, mtu }: { mac?: string | undefined; mtu?: number | undefined },
): NetlinkMessage {
  const attributes = [
    ...(mac === undefined ? [] : [attribute(IFLA_ADDRESS, macBytes(mac))]),
    ...(mtu === undefined ? [] : [attribute(IFLA_MTU, u32(mtu))]),
  ];
  const body = Buffer.concat([linkBody(index, IFF_UP), ...attributes]);
  return { type: RTM_NEWLINK, flags: 0, body };
}

function linkBody(index: number, flags: number): Buffer {
  const body = Buffer.alloc(16); // struct ifinfomsg
  body.writeUInt8(AF_UNSPEC, 0);
  body.writeInt32LE(index, 4);
  body.writeUInt32LE(flags, 8);
  body.writeUInt32LE(IFF_UP, 12); // the only flag that is changed
  return body;
}

/** Asks for all addresses of all interfaces, of both families. */
export function listAddresses(): NetlinkMessage {
  return { type: RTM_GETADDR, flags: NLM_F_DUMP, body: addressBody(AF_UNSPEC, 0, 0) };
}

/** Takes an address away. */
export function deleteAddress(old: InterfaceAddress): NetlinkMessage {
  const body = Buffer.concat([
    addressBody(familyOf(old.local), old.index, old.prefix),
    attribute(IFA_LOCAL, old.local),
    attribute(IFA_ADDRESS, old.address),
  ]);
  return { type: RTM_DELADDR, flags: 0, body };
}

/** Gives the interface an IPv4 address; `peer` is the other end of a point-to-point link. */
export function addAddress(
  index: number,
  o: { address: string; prefix: number; peer?: string | undefined },
): NetlinkMessage {
  const local = addressBytes(o.address);
  const hasBroadcast = o.prefix <= MAX_BROADCAST_PREFIX && o.peer === undefined;
  const broadcast = u32be((local.readUInt32BE() | (0xffff_ffff >>> o.prefix)) >>> 0);
  const body = Buffer.concat([
    addressBody(AF_INET, index, o.prefix),
    attribute(IFA_LOCAL, local),
    attribute(IFA_ADDRESS, addressBytes(o.peer ?? o.address)),
    ...(hasBroadcast ? [attribute(IFA_BROADCAST, broadcast)] : []),
  ]);
  return { type: RTM_NEWADDR, flags: NLM_F_CREATE | NLM_F_REPLACE, body };
}

/** Gives the interface an IPv6 address, which is in use at once. */
export function addV6Address(
  index: number,
  o: { address: string; prefix: number },
): NetlinkMessage {
  const local = attribute(IFA_LOCAL, addressBytes(o.address));
  const body = Buffer.concat([addressBody(AF_INET6, index, o.prefix, IFA_F_NODAD), local]);
  return { type: RTM_NEWADDR, flags: NLM_F_CREATE | NLM_F_REPLACE, body };
}

function addressBody(family: number, index: number, prefix: number, flags = 0): Buffer {
  const body = Buffer.alloc(8); // struct ifaddrmsg: family, prefix, flags, scope, index
  body.writeUInt8(family, 0);
  body.writeUInt8(prefix, 1);
  body.writeUInt8(flags, 2);
  body.writeUInt32LE(index, 4);
  return body;
}

/** Sends what has no other route, of the gateway's family, to a gateway on this interface. */
export function defaultRoute(index: number, gateway: string): NetlinkMessage {
  const via = addressBytes(gateway);
  const head = Buffer.alloc(12); // struct rtmsg; the destination is all
  head.writeUInt8(familyOf(via), 0);
  head.writeUInt8(RT_TABLE_MAIN, 4);
  head.writeUInt8(RTPROT_STATIC, 5);
  head.writeUInt8(RT_SCOPE_UNIVERSE, 6);
  head.writeUInt8(RTN_UNICAST, 7);
  head.writeUInt32LE(RTNH_F_ONLINK, 8);
  const body = Buffer.concat([head, attribute(RTA_GATEWAY, via), attribute(RTA_OIF, u32(index))]);
  return { type: RTM_NEWROUTE, flags: NLM_F_CREATE | NLM_F_REPLACE, body };
}

/** Says once and for all what MAC address an address has. */
export function permanentNeighbour(index: number, address: string, mac: string): NetlinkMessage {
  const of = addressBytes(address);
  const head = Buffer.alloc(12); // struct ndmsg: family, index, state, flags, type
  head.writeUInt8(familyOf(of), 0);
  head.writeInt32LE(index, 4);
  head.writeUInt16LE(NUD_PERMANENT, 8);
  const body = Buffer.concat([head, attribute(NDA_DST, of), attribute(NDA_LLADDR, macBytes(mac))]);
  return { type: RTM_NEWNEIGH, flags: NLM_F_CREATE | NLM_F_REPLACE, body };
}

/**
 * Several requests for one send(2), numbered from 1. The kernel does one after the other, goes on past
 * errors, and tells of those; of success only at the last.
 */
export function batch(messages: readonly NetlinkMessage[]): Buffer {
  return Buffer.concat(
    messages.map(({ type, flags, body }, index) => {
      const isLast = index === messages.length - 1 && (flags & NLM_F_DUMP) !== NLM_F_DUMP;
      const message = Buffer.alloc(HEADER_BYTES + aligned(body.length));
      message.writeUInt32LE(HEADER_BYTES + body.length, 0);
      message.writeUInt16LE(type, 4);
      message.writeUInt16LE(flags | NLM_F_REQUEST | (isLast ? NLM_F_ACK : 0), 6);
      message.writeUInt32LE(index + 1, 8);
      body.copy(message, HEADER_BYTES);
      return message;
    }),
  );
}

/** What the kernel says. */
export type NetlinkReply =
  /** `errno` 0: done. */
  | { readonly kind: 'ack'; readonly sequence: number; readonly errno: number }
  | { readonly kind: 'end' }
  | { readonly kind: 'address'; readonly address: InterfaceAddress };

/** Reads a datagram of the kernel's; what we have not asked for is left out. */
export function parseReplies(bytes: Buffer): NetlinkReply[] {
  const replies: NetlinkReply[] = [];
  for (let at = 0; at + HEADER_BYTES <= bytes.length;) {
    const length = bytes.readUInt32LE(at);
    if (length < HEADER_BYTES || at + length > bytes.length) break;
    const body = bytes.subarray(at + HEADER_BYTES, at + length);
    switch (bytes.readUInt16LE(at + 4)) {
      case NLMSG_ERROR: {
        const errno = Math.abs(body.readInt32LE(0)); // 0, or negative
        replies.push({ kind: 'ack', sequence: bytes.readUInt32LE(at + 8), errno });
        break;
      }
      case NLMSG_DONE:
        replies.push({ kind: 'end' });
        break;
      case RTM_NEWADDR: {
        const address = parseAddress(body);
        if (address !== undefined) replies.push({ kind: 'address', address });
        break;
      }
    }
    at += aligned(length);
  }
  return replies;
}

function parseAddress(body: Buffer): InterfaceAddress | undefined {
  const attributes = new Map<number, Buffer>();
  for (let at = 8; at + 4 <= body.length;) {
    const length = body.readUInt16LE(at);
    if (length < 4) break;
    attributes.set(body.readUInt16LE(at + 2), body.subarray(at + 4, at + length));
    at += aligned(length);
  }
  const address = attributes.get(IFA_ADDRESS);
  const local = attributes.get(IFA_LOCAL) ?? address;
  if (local === undefined || address === undefined) return undefined;
  return { index: body.readUInt32LE(4), prefix: body.readUInt8(1), local, address };
}

/** `struct rtattr`: length and type, then the value. */
function attribute(type: number, value: Buffer): Buffer {
  const bytes = Buffer.alloc(aligned(4 + value.length));
  bytes.writeUInt16LE(4 + value.length, 0);
  bytes.writeUInt16LE(type, 2);
  value.copy(bytes, 4);
  return bytes;
}

function aligned(length: number): number {
  return Math.ceil(length / ALIGN) * ALIGN;
}

function u32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  return bytes;
}

function u32be(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
}

function familyOf(address: Buffer): number {
  return isV6Bytes(address) ? AF_INET6 : AF_INET;
}

function macBytes(mac: string): Buffer {
  return Buffer.from(mac.replaceAll(':', ''), 'hex');
}
