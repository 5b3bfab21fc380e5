/** Frames that no socket would send, one case a line: what is logged and counted, and whether it reaches the upstream. */
import { describe, expect, test } from 'vitest';
import type { DenialCause } from '../../../nft/index.ts';
import * as f from './frames.ts';
import { type TestNetwork, useTestNetwork } from './network.ts';
import { expectOutcome, deniedCounts, type Outcome } from './outcome.ts';

const SITE = '203.0.113.10';
const GUEST = '10.210.0.2';
const GATEWAY = '10.210.0.1';
const OTHER_VM = '10.210.0.6';
const HOST = '198.51.100.1';

let net: TestNetwork;
useTestNetwork((made) => (net = made));

const HONEST = { from: '02:bb:00:00:00:01', to: '02:aa:00:00:00:01' };
const IP = 0x0800;
/** A datagram that the default policy denies by `policy` where nothing else does; with a token to look for. */
const datagram = (token: string, o: Partial<f.IpOptions> = {}): Buffer => {
  const ends = { source: GUEST, destination: SITE, ...o };
  return f.ipv4({ protocol: 17, ...ends }, f.udp(ends, 4000, 443, token));
};
/** One that it allows. */
const syn = (o: Partial<f.IpOptions> = {}, flags = f.SYN, port = 40_000): Buffer => {
  const ends = { source: GUEST, destination: SITE, ...o };
  return f.ipv4({ protocol: 6, ...ends }, f.tcp(ends, port, 443, flags, 'TOKEN'));
};
const frame = (payload: Buffer, tags: readonly [number, number][] = []): string =>
  f.ethernet(HONEST, IP, payload, tags);
const option = (...values: number[]): Buffer => Buffer.from(values);
const claim = (o: Partial<Parameters<typeof f.arp>[0]>): Buffer =>
  f.arp({ operation: 1, senderMac: HONEST.from, sender: GUEST, target: GATEWAY, ...o });
const ARP = 0x0806;
const BROADCAST = 'ff:ff:ff:ff:ff:ff';

type FrameCase = [name: string, frame: string, outcome: Outcome];
const deny = (cause: DenialCause): Outcome => ({ deny: cause });

const FRAME_CASES: FrameCase[] = [
  ['an honest SYN', frame(syn()), { allow: 1 }],
  ['honest ARP', f.ethernet({ ...HONEST, to: BROADCAST }, ARP, claim({})), 'unlogged'],
  ['VLAN tag with VID 0', frame(syn(), [[0x8100, 0]]), deny('ethertype')],
  ['VLAN tag with VID 5', frame(syn(), [[0x8100, 5]]), deny('ethertype')],
  [
    'two VLAN tags',
    frame(syn(), [
      [0x88a8, 0],
      [0x8100, 0],
    ]),
    deny('ethertype'),
  ],
  [
    'two tags of VID 0',
    frame(syn(), [
      [0x8100, 0],
      [0x8100, 0],
    ]),
    deny('ethertype'),
  ],
  ['tagged ARP', f.ethernet(HONEST, ARP, claim({}), [[0x8100, 0]]), deny('ethertype')],
  [
    'tagged IPv6',
    f.ethernet(HONEST, 0x86dd, f.ipv6('20010db8'.padEnd(32, '1'), 'TOKEN'), [[0x8100, 0]]),
    deny('ethertype'),
  ],
  ['LLDP', f.ethernet(HONEST, 0x88cc, Buffer.alloc(60)), deny('ethertype')],
  ['RARP', f.ethernet(HONEST, 0x8035, claim({})), deny('ethertype')],
  ['PPPoE', f.ethernet(HONEST, 0x8864, datagram('TOKEN')), deny('ethertype')],
  ['MPLS', f.ethernet(HONEST, 0x8847, datagram('TOKEN')), deny('ethertype')],
  ['a frame of 802.3', f.ethernet(HONEST, 60, Buffer.alloc(60, 0x42)), deny('ethertype')],
  [
    'IPv6 to a global address',
    f.ethernet(HONEST, 0x86dd, f.ipv6('20010db8'.padEnd(32, '1'), 'TOKEN')),
    deny('ipv6'),
  ],
  [
    'IPv6 to a link-local address',
    f.ethernet(HONEST, 0x86dd, f.ipv6('fe80'.padEnd(32, '1'), 'TOKEN')),
    deny('ipv6'),
  ],
  [
    'IPv6 to all nodes',
    f.ethernet(
      { ...HONEST, to: '33:33:00:00:00:01' },
      0x86dd,
      f.ipv6('ff02'.padEnd(31, '0') + '1', 'TOKEN'),
    ),
    deny('ipv6'),
  ],
  [
    'IPv6 to a private address',
    f.ethernet(HONEST, 0x86dd, f.ipv6('fd00'.padEnd(32, '1'), 'TOKEN')),
    deny('ipv6'),
  ],
  [
    'IPv6 to a mapped address',
    f.ethernet(HONEST, 0x86dd, f.ipv6('ffffcb00710a'.padStart(32, '0'), 'TOKEN')),
    deny('ipv6'),
  ],
  [
    'IPv6 to NAT64',
    f.ethernet(HONEST, 0x86dd, f.ipv6('0064ff9b0000000000000000a9fea9fe', 'TOKEN')),
    deny('ipv6'),
  ],
  [
    'ICMPv6',
    f.ethernet(HONEST, 0x86dd, f.ipv6('20010db8'.padEnd(32, '1'), 'TOKEN', 58)),
    deny('ipv6'),
  ],
  [
    'hop-by-hop options of IPv6',
    f.ethernet(HONEST, 0x86dd, f.ipv6('20010db8'.padEnd(32, '1'), 'TOKEN', 0)),
    deny('ipv6'),
  ],
  [
    "another VM's MAC as sender",
    f.ethernet({ ...HONEST, from: '02:bb:00:00:00:02' }, IP, syn()),
    deny('spoof'),
  ],
  [
    "the gateway's MAC as sender",
    f.ethernet({ ...HONEST, from: HONEST.to }, IP, syn()),
    deny('spoof'),
  ],
  [
    'a broadcast MAC as sender',
    f.ethernet({ ...HONEST, from: BROADCAST }, IP, syn()),
    deny('spoof'),
  ],
  ["another VM's address as sender", frame(syn({ source: OTHER_VM })), deny('spoof')],
  ["the gateway's address as sender", frame(syn({ source: GATEWAY })), deny('spoof')],
  ["the host's address as sender", frame(syn({ source: HOST })), deny('spoof')],
  ['a public address as sender', frame(syn({ source: '203.0.113.99' })), deny('spoof')],
  ['loopback as sender', frame(syn({ source: '127.0.0.1' })), deny('spoof')],
  [
    'no address as sender (DHCP)',
    f.ethernet(
      { ...HONEST, to: BROADCAST },
      IP,
      datagram('TOKEN', { source: '0.0.0.0', destination: '255.255.255.255' }),
    ),
    deny('spoof'),
  ],
  ['the destination as sender', frame(syn({ source: SITE })), deny('spoof')],
  ['to the broadcast MAC', f.ethernet({ ...HONEST, to: BROADCAST }, IP, syn()), deny('broadcast')],
  [
    'to a multicast MAC',
    f.ethernet({ ...HONEST, to: '01:00:5e:00:00:01' }, IP, syn()),
    deny('broadcast'),
  ],
  [
    "to another VM's MAC",
    f.ethernet({ ...HONEST, to: '02:bb:00:00:00:02' }, IP, syn()),
    deny('broadcast'),
  ],
  [
    'loose source routing',
    frame(syn({ options: option(131, 7, 4, 10, 1, 2, 3, 0) })),
    deny('options'),
  ],
  [
    'strict source routing',
    frame(syn({ options: option(137, 7, 4, 10, 1, 2, 3, 0) })),
    deny('options'),
  ],
  ['record route', frame(syn({ options: option(7, 7, 4, 0, 0, 0, 0, 0) })), deny('options')],
  ['router alert', frame(syn({ options: option(148, 4, 0, 0) })), deny('options')],
  ['options of nothing', frame(syn({ options: option(1, 1, 1, 0) })), deny('options')],
  ['a first fragment', frame(syn({ fragment: 0x2000 })), deny('fragment')],
  ['a middle fragment', frame(syn({ fragment: 0x2010 })), deny('fragment')],
  ['a last fragment', frame(syn({ fragment: 0x0010 })), deny('fragment')],
  ['a fragment that must not be', frame(syn({ fragment: 0x6000 })), deny('fragment')],
  [
    '"don\'t fragment" is none',
    frame(syn({ fragment: 0x4000, destination: '203.0.113.11' })),
    { allow: 1 },
  ],
  ['time to live 0', frame(syn({ ttl: 0 })), deny('ttl')],
  ['time to live 1', frame(syn({ ttl: 1 })), deny('ttl')],
  ['to loopback', frame(syn({ destination: '127.0.0.1' })), deny('address')],
  ['to multicast', frame(datagram('TOKEN', { destination: '224.0.0.251' })), deny('address')],
  ['to all', frame(datagram('TOKEN', { destination: '255.255.255.255' })), deny('address')],
  ['to nobody', frame(syn({ destination: '0.0.0.0' })), deny('address')],
  ['to a class E address', frame(syn({ destination: '240.0.0.1' })), deny('address')],
  [
    "to the tap's broadcast address",
    frame(datagram('TOKEN', { destination: '10.210.0.3' })),
    deny('host'),
  ],
  ...[
    ['IGMP', 2],
    ['IP in IP', 4],
    ['IPv6 in IPv4', 41],
    ['GRE', 47],
    ['ESP', 50],
    ['OSPF', 89],
    ['SCTP', 132],
    ['UDP-Lite', 136],
    ['an unknown protocol', 253],
  ].map(([name, protocol]): FrameCase => [
    name as string,
    frame(datagram('TOKEN', { protocol: protocol as number })),
    deny('protocol'),
  ]),
  [
    "ARP with another's MAC inside",
    f.ethernet(HONEST, ARP, claim({ senderMac: '02:bb:00:00:00:02' })),
    deny('arp'),
  ],
  ["ARP in another's name", f.ethernet(HONEST, ARP, claim({ sender: OTHER_VM })), deny('arp')],
  [
    "ARP in the gateway's name",
    f.ethernet(HONEST, ARP, claim({ sender: GATEWAY, operation: 2 })),
    deny('arp'),
  ],
  [
    'ARP from another MAC',
    f.ethernet({ ...HONEST, from: '02:bb:00:00:00:02' }, ARP, claim({})),
    deny('arp'),
  ],
  ['ARP for another VM', f.ethernet(HONEST, ARP, claim({ target: OTHER_VM })), deny('arp')],
  [
    'ARP for a host of the LAN',
    f.ethernet(HONEST, ARP, claim({ target: '198.51.100.2' })),
    deny('arp'),
  ],
  [
    'ARP of its own accord',
    f.ethernet(HONEST, ARP, claim({ target: GUEST, operation: 2 })),
    deny('arp'),
  ],
  ['an ARP probe', f.ethernet(HONEST, ARP, claim({ sender: '0.0.0.0' })), deny('arp')],
  ['an ARP operation of old', f.ethernet(HONEST, ARP, claim({ operation: 8 })), deny('arp')],
  ['ARP for other hardware', f.ethernet(HONEST, ARP, claim({ hardware: 6 })), deny('arp')],
  // Too short for some of what a rule looks at, which then does not match, whichever way it asks.
  ['half of an ARP packet', f.ethernet(HONEST, ARP, claim({}).subarray(0, 20)), deny('arp')],
  ['ARP without its end', f.ethernet(HONEST, ARP, claim({}).subarray(0, 26)), deny('arp')],
  ['an ARP frame of nothing', f.ethernet(HONEST, ARP, Buffer.alloc(0)), deny('arp')],
  ['half of an IP header', frame(syn().subarray(0, 10)), deny('protocol')],
  ['an IP header without its destination', frame(syn().subarray(0, 16)), deny('protocol')],
  ['an IP frame of nothing', frame(Buffer.alloc(0)), deny('protocol')],
  ['a TCP segment without its end', frame(f.shortened(syn(), 30)), deny('state')],
  ['a UDP datagram without its end', frame(f.shortened(datagram('TOKEN'), 24)), deny('state')],
  ['more bytes promised than there are', frame(syn().subarray(0, 30)), deny('protocol')],
  ['an ACK out of nothing', frame(syn({}, f.ACK, 41_000)), deny('state')],
  ['a RST out of nothing', frame(syn({}, f.RST, 41_001)), deny('state')],
  ['a SYN and ACK out of nothing', frame(syn({}, f.SYN | f.ACK, 41_002)), deny('state')],
  ['a SYN and FIN', frame(syn({}, f.SYN | 1, 41_003)), deny('state')],
  ['a segment without flags', frame(syn({}, 0, 41_004)), deny('state')],
  [
    'an ICMP timestamp request',
    frame(
      f.ipv4(
        { source: GUEST, destination: SITE, protocol: 1 },
        f.icmp(13, 0, Buffer.from('0001000100000000TOKEN')),
      ),
    ),
    deny('policy'),
  ],
  [
    'an echo reply out of nothing',
    frame(
      f.ipv4(
        { source: GUEST, destination: SITE, protocol: 1 },
        f.icmp(0, 0, Buffer.from('0001TOKEN')),
      ),
    ),
    deny('state'),
  ],
  [
    'an ICMP error out of nothing',
    frame(
      f.ipv4(
        { source: GUEST, destination: SITE, protocol: 1 },
        f.fragmentationNeeded(datagram('TOKEN', { source: SITE, destination: GUEST })),
      ),
    ),
    deny('state'),
  ],
  [
    'UDP to port 0',
    frame(
      f.ipv4(
        { source: GUEST, destination: SITE, protocol: 17 },
        f.udp({ source: GUEST, destination: SITE }, 1, 0, 'TOKEN'),
      ),
    ),
    deny('policy'),
  ],
];

describe('frames', () => {
  test.each(FRAME_CASES)('%s', async (_name, hex, outcome) => {
    await net.logs();
    await net.arrived();
    const before = await deniedCounts(net);
    await net.vms[0]!.peer.do('frame', { dev: 'eth0', frames: [hex] });
    await expectOutcome(net, outcome, before);
    const arrived = (await net.arrived()).join(' ');
    const token = Buffer.from('TOKEN').toString('hex');
    const passes = outcome !== 'unlogged' && 'allow' in outcome;
    expect(arrived.includes(token)).toBe(passes);
  });
});
