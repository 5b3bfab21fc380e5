/** One way to write an IPv6 address, so that addresses can be compared as texts, and with its port. Pure. */
import { SocketAddress } from 'node:net';

/** As RFC 5952 writes it, and the kernel, and nft. @param address is one, in whatever form */
export function ipv6Text(address: string): string {
  return new SocketAddress({ address, family: 'ipv6' }).address;
}

/** The same of 16 bytes. */
export function ipv6OfBytes(bytes: Buffer): string {
  const groups = Array.from({ length: 8 }, (_, at) => bytes.readUInt16BE(2 * at).toString(16));
  return ipv6Text(groups.join(':'));
}

/** An address of either family with a port, as flags take it: `192.0.2.1:80`, `[2001:db8::1]:80`. */
export function placeText(address: string, port: number | undefined): string {
  if (port === undefined) return address;
  return address.includes(':') ? `[${address}]:${port}` : `${address}:${port}`;
}
