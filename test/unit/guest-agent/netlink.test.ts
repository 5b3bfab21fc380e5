import { describe, expect, it } from 'vitest';
import {
  addAddress,
  addV6Address,
  batch,
  defaultRoute,
  deleteAddress,
  linkDown,
  linkUp,
  listAddresses,
  parseReplies,
  permanentNeighbour,
  type NetlinkMessage,
} from '../../../guest-agent/netlink.ts';

const MAC = '02:23:45:67:89:ab';

/** Header and body of one message, each as hex in groups of 4 bytes. */
const hexOf = (message: NetlinkMessage): string =>
  batch([message]).toString('hex').replaceAll(/.{8}/g, '$& ').trimEnd();

describe('messages', () => {
  it('take the interface down and up', () => {
    expect(hexOf(linkDown(2))).toBe(
      '20000000 10000500 01000000 00000000 00000000 02000000 00000000 01000000',
    );
    expect(hexOf(linkUp(2, {}))).toBe(
      '20000000 10000500 01000000 00000000 00000000 02000000 01000000 01000000',
    );
    expect(hexOf(linkUp(258, { mac: MAC, mtu: 1400 }))).toBe(
      '34000000 10000500 01000000 00000000 00000000 02010000 01000000 01000000 ' +
        '0a000100 02234567 89ab0000 08000400 78050000',
    );
  });

  it('set an address, with a broadcast address where there is one', () => {
    expect(hexOf(addAddress(2, { address: '10.0.2.15', prefix: 24 }))).toBe(
      '30000000 14000505 01000000 00000000 02180000 02000000 ' +
        '08000200 0a00020f 08000100 0a00020f 08000400 0a0002ff',
    );
  });

  it('set one of two, and that of a point-to-point link', () => {
    expect(hexOf(addAddress(2, { address: '192.0.2.1', prefix: 31 }))).toBe(
      '28000000 14000505 01000000 00000000 021f0000 02000000 08000200 c0000201 08000100 c0000201',
    );
    expect(hexOf(addAddress(2, { address: '192.0.2.1', prefix: 32, peer: '198.51.100.7' }))).toBe(
      '28000000 14000505 01000000 00000000 02200000 02000000 08000200 c0000201 08000100 c6336407',
    );
  });

  it('set the default route and the gateway’s neighbour entry', () => {
    expect(hexOf(defaultRoute(2, '10.0.2.2'))).toBe(
      '2c000000 18000505 01000000 00000000 02000000 fe040001 04000000 ' +
        '08000500 0a000202 08000400 02000000',
    );
    expect(hexOf(permanentNeighbour(2, '10.0.2.2', MAC))).toBe(
      '30000000 1c000505 01000000 00000000 02000000 02000000 80000000 ' +
        '08000100 0a000202 0a000200 02234567 89ab0000',
    );
  });

  it('set an IPv6 address that nobody is asked for, and the way out by it', () => {
    expect(hexOf(addV6Address(2, { address: 'fd12:3456::1f', prefix: 127 }))).toBe(
      '2c000000 14000505 01000000 00000000 0a7f0200 02000000 ' +
        '14000200 fd123456 00000000 00000000 0000001f',
    );
    expect(hexOf(defaultRoute(2, 'fd12:3456::1e'))).toBe(
      '38000000 18000505 01000000 00000000 0a000000 fe040001 04000000 ' +
        '14000500 fd123456 00000000 00000000 0000001e 08000400 02000000',
    );
    expect(hexOf(permanentNeighbour(2, 'fd12:3456::1e', MAC))).toBe(
      '3c000000 1c000505 01000000 00000000 0a000000 02000000 80000000 ' +
        '14000100 fd123456 00000000 00000000 0000001e 0a000200 02234567 89ab0000',
    );
  });

  it('refuse what is no address', () => {
    expect(() => defaultRoute(2, '10.0.2')).toThrow('"10.0.2" is no address');
  });
});

describe('batch', () => {
  it('numbers the messages from 1, and asks for an answer to the last', () => {
    const bytes = batch([linkDown(2), linkUp(2, {})]);
    expect(bytes.length).toBe(64);
    expect([bytes.readUInt32LE(8), bytes.readUInt32LE(32 + 8)]).toEqual([1, 2]);
    expect([bytes.readUInt16LE(6), bytes.readUInt16LE(32 + 6)]).toEqual([1, 5]);
  });

  it('asks for no answer to a dump, which has an end of its own', () => {
    expect(batch([listAddresses()]).readUInt16LE(6)).toBe(0x301);
  });
});

describe('parseReplies', () => {
  const message = (type: number, sequence: number, body: Buffer): Buffer => {
    const head = Buffer.alloc(16);
    head.writeUInt32LE(16 + body.length, 0);
    head.writeUInt16LE(type, 4);
    head.writeUInt32LE(sequence, 8);
    return Buffer.concat([head, body, Buffer.alloc(-body.length & 3)]);
  };
  const errno = (value: number): Buffer => {
    const body = Buffer.alloc(20);
    body.writeInt32LE(value);
    return body;
  };

  it('reads answers, good and bad, and the end of a dump', () => {
    const bytes = Buffer.concat([
      message(2, 3, errno(-17)),
      message(2, 4, errno(0)),
      message(3, 1, errno(0)),
    ]);
    expect(parseReplies(bytes)).toEqual([
      { kind: 'ack', sequence: 3, errno: 17 },
      { kind: 'ack', sequence: 4, errno: 0 },
      { kind: 'end' },
    ]);
  });

  it('reads an address that deleteAddress takes back', () => {
    const added = addAddress(2, { address: '192.0.2.1', prefix: 32, peer: '198.51.100.7' }).body;
    const [reply] = parseReplies(message(20, 1, added));
    expect(reply).toMatchObject({ kind: 'address', address: { index: 2, prefix: 32 } });
    if (reply?.kind !== 'address') return;
    expect([...reply.address.local]).toEqual([192, 0, 2, 1]);
    expect(deleteAddress(reply.address).body).toEqual(added);
  });

  it('reads one of IPv6, which has no local part of its own', () => {
    const { body } = addV6Address(2, { address: 'fd12:3456::1f', prefix: 127 });
    const told = Buffer.from(body);
    told.writeUInt16LE(1, 10); // IFA_ADDRESS, as inet6_fill_ifaddr has it
    const [reply] = parseReplies(message(20, 1, told));
    if (reply?.kind !== 'address') throw new Error('no address');
    const removal = deleteAddress(reply.address).body;
    expect(removal.subarray(0, 8).toString('hex')).toBe('0a7f000002000000');
    expect(removal.subarray(8, 28).toString('hex')).toBe(
      '14000200fd12345600000000000000000000001f',
    );
  });

  it('leaves out what is cut off, what makes no sense, and what nobody asked for', () => {
    expect(parseReplies(message(2, 1, errno(0)).subarray(0, 30))).toEqual([]);
    expect(parseReplies(Buffer.alloc(64))).toEqual([]);
    expect(parseReplies(message(16, 1, Buffer.alloc(16)))).toEqual([]);
  });
});
