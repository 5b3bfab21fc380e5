/** Addresses as the kernel has them, of either family: 4 bytes or 16. Pure. */
import { isIPv4, isIPv6 } from 'node:net';

/** Of which family an address is that has so many bytes. */
export function isV6Bytes(bytes: Buffer): boolean {
  return bytes.length === 16;
}

/** Whether it is the IPv6 address of one machine that others may reach by a router. */
export function isUnicastV6(address: string): boolean {
  if (!isIPv6(address) || address.includes('%')) return false;
  const bytes = addressBytes(address);
  const first = bytes.readUInt16BE(0);
  const isMulticast = first >= 0xff00;
  const isLinkLocal = (first & 0xffc0) === 0xfe80;
  const isOfIpv4 = bytes.subarray(0, 10).every((byte) => byte === 0); // ::, ::1, ::ffff:192.0.2.1
  return !isMulticast && !isLinkLocal && !isOfIpv4;
}

/** @throws TypeError it is none */
export function addressBytes(address: string): Buffer {
  if (isIPv4(address)) return Buffer.from(address.split('.').map(Number));
  if (!isIPv6(address) || address.includes('%'))
    throw new TypeError(`${JSON.stringify(address)} is no address`);
  const [head = '', tail] = address.split('::');
  const front = groupsOf(head);
  const back = tail === undefined ? [] : groupsOf(tail);
  const gap = Array<number>(8 - front.length - back.length).fill(0);
  const bytes = Buffer.alloc(16);
  [...front, ...gap, ...back].forEach((group, index) => bytes.writeUInt16BE(group, 2 * index));
  return bytes;
}

/** The last one may be an IPv4 address, and stands for two. */
function groupsOf(text: string): number[] {
  if (text === '') return [];
  return text.split(':').flatMap((group) => {
    if (!group.includes('.')) return Number.parseInt(group, 16);
    const bytes = addressBytes(group);
    return [bytes.readUInt16BE(0), bytes.readUInt16BE(2)];
  });
}

/** For people; without the short forms of IPv6. */
export function addressText(bytes: Buffer): string {
  if (!isV6Bytes(bytes)) return bytes.join('.');
  return Array.from({ length: 8 }, (_, index) => bytes.readUInt16BE(2 * index).toString(16)).join(
    ':',
  );
}
