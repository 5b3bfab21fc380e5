/** Frames byte by byte, from a guest's own interface: what no socket would send. */
import { describe, expect, it } from 'vitest';
import * as f from '../../../integration/nft/frames.ts';
import { HOST, OTHER, WEB } from '../world.ts';
import { carriesToken, connect, denied, GATEWAY_MAC, type Matrix, TOKEN } from './subject.ts';

type Make = (m: Matrix) => string;
type Row = [name: string, make: Make, cause: string];

const IP = 0x0800;
const ARP = 0x0806;
const IP6 = 0x86dd;
const VLAN = 0x8100;
const BROADCAST = 'ff:ff:ff:ff:ff:ff';
const FOREIGN = '02:bb:00:00:00:09';
const FIN = 1;
const PSH = 8;
const URG = 32;

const honest = ({ one }: Matrix): f.Ends => ({ from: one.mac, to: GATEWAY_MAC });
const frame = (m: Matrix, payload: Buffer, type = IP): string =>
  f.ethernet(honest(m), type, payload);

/** What the policy allows where nothing else is wrong with it. */
function syn(m: Matrix, o: Partial<f.IpOptions> = {}, flags = f.SYN, from = 47_001): Buffer {
  const ends = { source: m.one.address, destination: WEB, ...o };
  return f.ipv4({ protocol: 6, ...ends }, f.tcp(ends, from, 443, flags, TOKEN));
}
const ip =
  (o: Partial<f.IpOptions> | ((m: Matrix) => Partial<f.IpOptions>)): Make =>
  (m) =>
    frame(m, syn(m, typeof o === 'function' ? o(m) : o));
const options = (...bytes: number[]): Make => ip({ options: Buffer.from(bytes) });
const flags =
  (value: number, from: number): Make =>
  (m) =>
    frame(m, syn(m, {}, value, from));
const tagged =
  (...tags: [number, number][]): Make =>
  (m) =>
    f.ethernet(honest(m), IP, syn(m), tags);
const ofType =
  (type: number, payload: (m: Matrix) => Buffer = syn): Make =>
  (m) =>
    frame(m, payload(m), type);
const between =
  (ends: Partial<f.Ends>): Make =>
  (m) =>
    f.ethernet({ ...honest(m), ...ends }, IP, syn(m));
const v6 = (destination: string, next = 17): Make =>
  ofType(IP6, () => f.ipv6(destination, TOKEN, next));
const claim =
  (o: (m: Matrix) => Partial<Parameters<typeof f.arp>[0]>, ends: Partial<f.Ends> = {}): Make =>
  (m) =>
    f.ethernet({ ...honest(m), ...ends }, ARP, arp(m, o(m)));
const arp = (m: Matrix, o: Partial<Parameters<typeof f.arp>[0]> = {}): Buffer =>
  f.arp({ operation: 1, senderMac: m.one.mac, sender: m.one.address, target: m.one.gateway, ...o });
const icmp =
  (type: number, rest: (m: Matrix) => Buffer): Make =>
  (m) =>
    frame(
      m,
      f.ipv4({ source: m.one.address, destination: WEB, protocol: 1 }, f.icmp(type, 0, rest(m))),
    );
/** Bytes of the packet that are others than they were. */
const changed =
  (at: number, ...bytes: number[]): Make =>
  (m) => {
    const packet = syn(m);
    packet.set(bytes, at);
    return frame(m, packet);
  };

const ETHERNET: Row[] = [
  ['a VLAN tag with VID 0', tagged([VLAN, 0]), 'ethertype'],
  ['a VLAN tag with VID 5', tagged([VLAN, 5]), 'ethertype'],
  ['two VLAN tags', tagged([0x88a8, 0], [VLAN, 0]), 'ethertype'],
  ['two tags of one type', tagged([VLAN, 0], [VLAN, 0]), 'ethertype'],
  ['a tag of the time before the standard', tagged([0x9100, 0]), 'ethertype'],
  ['tagged ARP', (m) => f.ethernet(honest(m), ARP, arp(m), [[VLAN, 0]]), 'ethertype'],
  ['PPPoE', ofType(0x8864), 'ethertype'],
  ['LLDP', ofType(0x88cc, () => Buffer.alloc(60)), 'ethertype'],
  ['spanning tree (802.3)', ofType(38, () => Buffer.alloc(60, 0x42)), 'ethertype'],
  ["the gateway's MAC as sender", between({ from: GATEWAY_MAC }), 'spoof'],
  ['a foreign MAC as sender', between({ from: FOREIGN }), 'spoof'],
  ['to the broadcast MAC', between({ to: BROADCAST }), 'broadcast'],
  ['to a multicast MAC', between({ to: '01:00:5e:00:00:fb' }), 'broadcast'],
  ["to another VM's MAC", (m) => between({ to: m.two.mac })(m), 'broadcast'],
];

const IPV6: Row[] = [
  ['IPv6 to a global address', v6('20010db8'.padEnd(32, '1')), 'ipv6'],
  ['IPv6 to a link-local address', v6('fe80'.padEnd(32, '1')), 'ipv6'],
  ['IPv6 to all nodes', v6('ff02'.padEnd(31, '0') + '1'), 'ipv6'],
  ['IPv6 to a mapped address', v6('ffffcb00710a'.padStart(32, '0')), 'ipv6'],
  ['IPv6 to the metadata service by NAT64', v6('0064ff9b0000000000000000a9fea9fe'), 'ipv6'],
  ['ICMPv6', v6('20010db8'.padEnd(32, '1'), 58), 'ipv6'],
  ['a fragment of IPv6', v6('20010db8'.padEnd(32, '1'), 44), 'ipv6'],
];

const IPV4: Row[] = [
  ["another VM's address as sender", ip((m) => ({ source: m.two.address })), 'spoof'],
  ["the gateway's address as sender", ip((m) => ({ source: m.one.gateway })), 'spoof'],
  ["the host's address as sender", ip({ source: HOST }), 'spoof'],
  ['a public address as sender', ip({ source: OTHER }), 'spoof'],
  ['loopback as sender', ip({ source: '127.0.0.1' }), 'spoof'],
  ['no address as sender (DHCP)', ip({ source: '0.0.0.0' }), 'spoof'],
  ['loose source routing', options(131, 7, 4, 10, 1, 2, 3, 0), 'options'],
  ['strict source routing', options(137, 7, 4, 10, 1, 2, 3, 0), 'options'],
  ['record route', options(7, 7, 4, 0, 0, 0, 0, 0), 'options'],
  ['router alert', options(148, 4, 0, 0), 'options'],
  ['a header too short to be one', changed(0, 0x44), 'options'],
  ['a first fragment', ip({ fragment: 0x2000 }), 'fragment'],
  [
    'a first fragment of eight bytes',
    (m) => frame(m, f.shortened(syn(m, { fragment: 0x2000 }), 28)),
    'fragment',
  ],
  ['a fragment over the header of the first', ip({ fragment: 0x2001 }), 'fragment'],
  ['a last fragment', ip({ fragment: 0x0010 }), 'fragment'],
  ['time to live 1', ip({ ttl: 1 }), 'ttl'],
  ['loopback', ip({ destination: '127.0.0.1' }), 'address'],
  ['multicast', ip({ destination: '224.0.0.251' }), 'address'],
  ['a class E address', ip({ destination: '240.0.0.1' }), 'address'],
  ['this network', ip({ destination: '0.1.2.3' }), 'address'],
  ['its own address by way of the gateway', ip((m) => ({ destination: m.one.address })), 'vm'],
  ['IP in IP', ip({ protocol: 4 }), 'protocol'],
  ['IPv6 in IPv4', ip({ protocol: 41 }), 'protocol'],
  ['GRE', ip({ protocol: 47 }), 'protocol'],
  ['ESP', ip({ protocol: 50 }), 'protocol'],
  ['SCTP', ip({ protocol: 132 }), 'protocol'],
  ['IGMP to the gateway', ip((m) => ({ protocol: 2, destination: m.one.gateway })), 'protocol'],
  ['protocol 255', ip({ protocol: 255 }), 'protocol'],
  ['version 6 in a frame of IPv4', changed(0, 0x65), 'protocol'],
  ['more bytes promised than there are', changed(2, 0x05, 0xdc), 'protocol'],
  ['half of a header', (m) => frame(m, syn(m).subarray(0, 10)), 'protocol'],
];

const TRANSPORT: Row[] = [
  ['an ACK out of nothing', flags(f.ACK, 47_002), 'state'],
  ['a SYN and ACK out of nothing', flags(f.SYN | f.ACK, 47_003), 'state'],
  ['a RST out of nothing', flags(f.RST, 47_004), 'state'],
  ['a SYN and FIN', flags(f.SYN | FIN, 47_005), 'state'],
  ['FIN, PSH and URG', flags(FIN | PSH | URG, 47_006), 'state'],
  ['a wrong checksum', changed(36, 0, 0), 'state'],
  ['a TCP header without its end', (m) => frame(m, f.shortened(syn(m), 30)), 'state'],
  [
    'a UDP header without its end',
    (m) => frame(m, f.shortened(syn(m, { protocol: 17 }), 24)),
    'state',
  ],
  [
    'an ICMP error out of nothing',
    icmp(3, (m) => quoted({ source: WEB, destination: m.one.address })),
    'state',
  ],
  ['an echo reply out of nothing', icmp(0, () => Buffer.from(`0001${TOKEN}`)), 'state'],
  ['a router solicitation (ICMP)', icmp(10, () => Buffer.from(`0000${TOKEN}`)), 'state'],
];

const ARPS: Row[] = [
  ["ARP in the gateway's name", claim((m) => ({ sender: m.one.gateway, operation: 2 })), 'arp'],
  ["ARP in another VM's name", claim((m) => ({ sender: m.two.address })), 'arp'],
  ["ARP with another's MAC inside", claim(() => ({ senderMac: FOREIGN })), 'arp'],
  ['ARP for another VM', claim((m) => ({ target: m.two.address }), { to: BROADCAST }), 'arp'],
  ['ARP for the host', claim(() => ({ target: HOST }), { to: BROADCAST }), 'arp'],
  [
    'ARP of its own accord',
    claim((m) => ({ target: m.one.address, operation: 2 }), { to: BROADCAST }),
    'arp',
  ],
  ['an ARP probe', claim(() => ({ sender: '0.0.0.0' }), { to: BROADCAST }), 'arp'],
  ['an ARP operation of old', claim(() => ({ operation: 8 })), 'arp'],
  ['half of an ARP packet', (m) => frame(m, arp(m).subarray(0, 20), ARP), 'arp'],
];

/** What an ICMP error quotes: a packet of a connection, 443 to a port. */
function quoted(o: { source: string; destination: string }, port = 2000): Buffer {
  const packet = f.ipv4({ protocol: 6, ...o }, f.tcp(o, 443, port, f.ACK));
  return Buffer.concat([Buffer.from([0, 0, 2, 88]), packet.subarray(0, 28)]);
}

export function frameCases(of: () => Matrix): void {
  const send = (...frames: string[]) => of().one.peer.do('frame', { dev: 'eth0', frames });
  const rows = (name: string, table: Row[]): void => {
    describe(name, () => {
      it.each(table)('%s', async (_name, make, cause) => {
        await of().check(of().one, () => send(make(of())), denied(cause));
      });
    });
  };

  describe('honest frames', () => {
    it.each<[string, (m: Matrix) => Buffer]>([
      ['a SYN', (m) => syn(m)],
      ['one that must not be split', (m) => syn(m, { fragment: 0x4000 }, f.SYN, 47_011)],
      ['one with two more hops to live', (m) => syn(m, { ttl: 2 }, f.SYN, 47_012)],
    ])('%s', async (_name, packet) => {
      await of().check(of().one, () => send(frame(of(), packet(of()))), {
        record: { kind: 'connection', to: WEB, toPort: 443 },
        passes: true,
      });
    });

    it('ARP for the gateway is answered', async () => {
      const m = of();
      await m.one.peer.do('take', { id: 'frames' });
      await m.check(m.one, () => send(claim(() => ({}))(m)), { passes: false });
      const seen = (await m.one.peer.do('take', { id: 'frames' })) as string[];
      const reply = `0806${'0001080006040002'}${GATEWAY_MAC.replaceAll(':', '')}`;
      expect(seen.some((hex) => hex.includes(reply))).toBe(true);
    });
  });

  rows('Ethernet', ETHERNET);
  rows('ARP', ARPS);
  rows('IPv6', IPV6);
  rows('IPv4', IPV4);
  rows('TCP, UDP and ICMP', TRANSPORT);

  describe('an ICMP error', () => {
    /** @param to whom it is sent to */
    const error = (m: Matrix, type: number, to: string, packet: Buffer): string => {
      const code = type === 3 ? 4 : 1;
      const o = { source: m.one.address, destination: to, protocol: 1 };
      return frame(m, f.ipv4(o, f.icmp(type, code, packet)));
    };

    it("about another VM's connection", async () => {
      const m = of();
      await connect(m.two, OTHER, 443, { id: 'theirs', from: [m.two.address, 50_001] });
      const about = quoted({ source: OTHER, destination: m.two.address }, 50_001);
      await m.check(m.one, () => send(error(m, 3, OTHER, about)), denied('related'));
      await m.two.peer.do('close', { id: 'theirs' });
    });

    it('about its own is let through, and a redirect is not', async () => {
      const m = of();
      await connect(m.one, WEB, 443, { id: 'own', from: [m.one.address, 50_002] });
      await m.one.records.expect({ kind: 'connection', fromPort: 50_002 });
      const about = quoted({ source: WEB, destination: m.one.address }, 50_002);
      await m.check(m.one, () => send(error(m, 5, WEB, about)), denied('related'));
      await m.internet.do('take', { id: 'frames' });
      m.one.records.clear();
      await send(error(m, 3, WEB, about));
      const arrived = (await m.internet.do('take', { id: 'frames', waitS: 2 })) as string[];
      // The protocol is the tenth byte of the IP header.
      expect(arrived.some((hex) => hex.slice(46, 48) === '01' && !carriesToken(hex))).toBe(true);
      expect(m.one.records.all).toEqual([]);
      await m.one.peer.do('close', { id: 'own' });
    });
  });
}
