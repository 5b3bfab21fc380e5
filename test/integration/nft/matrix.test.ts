/** What passes and what does not, one case a line: each asserts the outcome, and what was logged and counted. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { DenialCause, EgressRule, NetworkPolicy } from '../../../nft/index.ts';
import { DEFAULT_POLICY, ISOLATED_POLICY } from '../../../nft/index.ts';
import * as f from './frames.ts';
import { TestNetwork, whyNot } from './network.ts';

const skip = whyNot();
const SITE = '203.0.113.10';
const GUEST = '10.210.0.2';
const GATEWAY = '10.210.0.1';
const OTHER_VM = '10.210.0.6';
const OTHER_GATEWAY = '10.210.0.5';
const HOST = '198.51.100.1';

let net: TestNetwork;
beforeAll(async () => {
  if (skip === undefined) net = await TestNetwork.create();
});
afterAll(() => net?.close());

type Outcome = { allow: number } | { deny: DenialCause | number } | 'unlogged';
type SocketCase = [name: string, what: string, to: string, port: number, result: string, Outcome];

const REFUSED = 'ECONNREFUSED';
const PROHIBITED = 'EHOSTUNREACH';
const policy = { deny: 'policy' } as const;
const reserved = { deny: 'reserved' } as const;
const host = { deny: 'host' } as const;
const vm = { deny: 'vm' } as const;

const DEFAULT_CASES: SocketCase[] = [
  ['http', 'tcp', SITE, 80, 'ok', { allow: 1 }],
  ['https', 'tcp', SITE, 443, 'ok', { allow: 1 }],
  ['ssh', 'tcp', SITE, 22, 'ok', { allow: 2 }],
  ['git', 'tcp', SITE, 9418, 'ok', { allow: 2 }],
  ['https elsewhere', 'tcp', '203.0.113.11', 443, 'ok', { allow: 1 }],
  ['mail', 'tcp', SITE, 25, REFUSED, policy],
  ['DNS over TCP to another server', 'tcp', SITE, 53, REFUSED, policy],
  ['DNS over TLS', 'tcp', SITE, 853, REFUSED, policy],
  ['a database', 'tcp', SITE, 5432, REFUSED, policy],
  ['another web port', 'tcp', SITE, 8080, REFUSED, policy],
  ['QUIC', 'udp', SITE, 443, PROHIBITED, policy],
  ['DNS to another server', 'udp', SITE, 53, PROHIBITED, policy],
  ['NTP', 'udp', SITE, 123, PROHIBITED, policy],
  ['mDNS by unicast', 'udp', SITE, 5353, PROHIBITED, policy],
  ['ping', 'ping', SITE, 0, 'unreachable 13', policy],
  ['RFC 1918, class A', 'tcp', '10.1.2.3', 443, REFUSED, reserved],
  ['RFC 1918, class B', 'tcp', '172.16.0.5', 443, REFUSED, reserved],
  ['RFC 1918, class C', 'tcp', '192.168.1.10', 80, REFUSED, reserved],
  ['carrier-grade NAT', 'tcp', '100.64.0.1', 443, REFUSED, reserved],
  ['metadata service', 'tcp', '169.254.169.254', 80, REFUSED, reserved],
  ['metadata service, DNS', 'udp', '169.254.169.254', 53, PROHIBITED, reserved],
  ['benchmark range', 'tcp', '198.18.0.1', 80, REFUSED, reserved],
  ['ping into RFC 1918', 'ping', '10.1.2.3', 0, 'unreachable 13', reserved],
  ['UDP into RFC 1918', 'udp', '192.168.1.10', 443, PROHIBITED, reserved],
  ['the resolver', 'udp', GATEWAY, 53, 'echo', 'unlogged'],
  ['the resolver over TCP', 'tcp', GATEWAY, 53, 'ok', 'unlogged'],
  ['ping to the gateway', 'ping', GATEWAY, 0, 'echo', 'unlogged'],
  ['ssh of the host', 'tcp', GATEWAY, 22, REFUSED, host],
  ['a service of the host', 'tcp', GATEWAY, 8080, REFUSED, host],
  ['a closed port of the host', 'tcp', GATEWAY, 81, REFUSED, host],
  ['a UDP service of the host', 'udp', GATEWAY, 161, PROHIBITED, host],
  ['ssh at another address of the host', 'tcp', HOST, 22, REFUSED, host],
  ['web at another address of the host', 'tcp', HOST, 80, REFUSED, host],
  ['DNS at another address of the host', 'udp', HOST, 53, PROHIBITED, host],
  ['DNS over TCP at another address of the host', 'tcp', HOST, 53, REFUSED, host],
  ['ping to another address of the host', 'ping', HOST, 0, 'unreachable 13', host],
  ["the resolver at another VM's gateway", 'udp', OTHER_GATEWAY, 53, PROHIBITED, host],
  ["ping to another VM's gateway", 'ping', OTHER_GATEWAY, 0, 'unreachable 13', host],
  ['web of another VM', 'tcp', OTHER_VM, 80, REFUSED, vm],
  ['another port of another VM', 'tcp', OTHER_VM, 8080, REFUSED, vm],
  ['UDP to another VM', 'udp', OTHER_VM, 80, PROHIBITED, vm],
  ['ping to another VM', 'ping', OTHER_VM, 0, 'unreachable 13', vm],
  ['an address of no VM', 'tcp', '10.210.0.130', 80, REFUSED, reserved],
];

const allowRule = (id: number, o: Partial<EgressRule> = {}): EgressRule => ({
  id,
  title: `rule ${id}`,
  action: 'allow',
  protocol: 'tcp',
  ports: [],
  destination: { kind: 'public' },
  ...o,
});
const addresses = (...cidrs: string[]) => ({ kind: 'addresses', cidrs }) as const;

const RULES: EgressRule[] = [
  allowRule(11, { action: 'deny', destination: addresses('203.0.113.11') }),
  allowRule(12, { ports: [443, [8000, 8100]] }),
  allowRule(13, { protocol: 'udp', ports: [443] }),
  allowRule(14, { protocol: 'icmp', destination: addresses('203.0.113.0/28') }),
  allowRule(15, {
    ports: [5432, 25],
    destination: addresses('10.1.2.3', '10.1.2.4', '10.1.2.0/31'),
  }),
  allowRule(16, {
    ports: [80],
    destination: addresses('203.0.113.10', '192.0.2.0/24', ...manyCidrs()),
  }),
];

/** So many that they become a set. */
function manyCidrs(): string[] {
  return Array.from({ length: 40 }, (_, index) => `192.0.2.${index * 4}/30`);
}

const OWN_RULES: Partial<NetworkPolicy> = { rules: RULES, exceptions: ['10.1.2.3'] };
const OWN_CASES: SocketCase[] = [
  ['a port that is named', 'tcp', SITE, 443, 'ok', { allow: 12 }],
  ['a port in a range', 'tcp', SITE, 8080, 'ok', { allow: 12 }],
  ['an address in a long list', 'tcp', SITE, 80, 'ok', { allow: 16 }],
  ['a port of no rule', 'tcp', SITE, 22, REFUSED, policy],
  ['an address that a rule before denies', 'tcp', '203.0.113.11', 443, REFUSED, { deny: 11 }],
  ['UDP that is named', 'udp', SITE, 443, 'echo', { allow: 13 }],
  ['UDP that is not', 'udp', SITE, 123, PROHIBITED, policy],
  ['UDP to what a TCP rule denies', 'udp', '203.0.113.11', 443, 'echo', { allow: 13 }],
  ['ping that is named', 'ping', SITE, 0, 'echo', { allow: 14 }],
  ['a private address by name', 'tcp', '10.1.2.3', 5432, 'ok', { allow: 15 }],
  ['a private address by name, another port', 'tcp', '10.1.2.3', 443, REFUSED, policy],
  ['a private address that only a rule names', 'tcp', '10.1.2.4', 5432, REFUSED, reserved],
  ['metadata service', 'tcp', '169.254.169.254', 443, REFUSED, reserved],
  ['the resolver', 'udp', GATEWAY, 53, 'echo', 'unlogged'],
];

const SILENT_CASES: SocketCase[] = [
  ['a port that is named', 'tcp', SITE, 443, 'ok', { allow: 1 }],
  ['TCP', 'tcp', SITE, 25, 'timeout', policy],
  ['UDP', 'udp', SITE, 53, 'timeout', policy],
  ['the host', 'tcp', GATEWAY, 22, 'timeout', host],
];

const isolated = { deny: 'isolated' } as const;
const ISOLATED_CASES: SocketCase[] = [
  ['https', 'tcp', SITE, 443, REFUSED, isolated],
  ['UDP', 'udp', SITE, 443, PROHIBITED, isolated],
  ['ping', 'ping', SITE, 0, 'unreachable 13', isolated],
  ['the resolver', 'udp', GATEWAY, 53, PROHIBITED, host],
  ['the resolver over TCP', 'tcp', GATEWAY, 53, REFUSED, host],
  ['ping to the gateway', 'ping', GATEWAY, 0, 'unreachable 13', host],
  ['another VM', 'tcp', OTHER_VM, 80, REFUSED, vm],
];

async function checkSocket([, what, to, port, result, outcome]: SocketCase): Promise<void> {
  await net.logs();
  const before = await deniedCounts();
  const command = what === 'tcp' ? 'tcp_connect' : what;
  const answer = await net.vms[0]!.peer.do(command, { to, port, timeoutS: 0.4 });
  expect(answer).toBe(result);
  await expectOutcome(outcome, before);
}

async function deniedCounts(): Promise<Map<string | number, number>> {
  const counters = (await net.client.counters({ groups: ['denied'] })).get('tvm1');
  return new Map<string | number, number>([
    ...[...(counters?.deniedByCause ?? [])].map(
      ([cause, { packets }]) => [cause, packets] as const,
    ),
    ...[...(counters?.deniedByRule ?? [])].map(([id, { packets }]) => [id, packets] as const),
  ]);
}

async function expectOutcome(
  outcome: Outcome,
  before: Map<string | number, number>,
): Promise<void> {
  // Inward come the ends of connections of the cases before, which a change of the policy has cut.
  const logs = (await net.logs(outcome === 'unlogged' ? {} : { waitS: 1 })).filter(
    (entry) => entry.tap === 'tvm1' && !('cause' in entry && entry.cause === 'inward'),
  );
  const after = await deniedCounts();
  const grown = [...after].filter(
    ([key, count]) => key !== 'inward' && count > (before.get(key) ?? 0),
  );
  const seen = new Set(logs.map((entry) => JSON.stringify(entry)));
  if (outcome === 'unlogged') {
    expect([...seen]).toEqual([]);
    expect(grown).toEqual([]);
  } else if ('allow' in outcome) {
    const { allow: ruleId } = outcome;
    expect([...seen]).toEqual([JSON.stringify({ verdict: 'allow', ruleId, tap: 'tvm1' })]);
    expect(grown).toEqual([]);
  } else {
    const { deny } = outcome;
    const expected =
      typeof deny === 'number'
        ? { verdict: 'deny', cause: 'rule', ruleId: deny, tap: 'tvm1' }
        : { verdict: 'deny', cause: deny, tap: 'tvm1' };
    expect([...seen]).toEqual([JSON.stringify(expected)]);
    expect(grown.map(([key]) => key)).toEqual([deny]);
  }
}

function socketCases(cases: SocketCase[]): void {
  test.each(cases)('%s (%s %s %i): %s', async (...parts) => {
    // The test's context comes last.
    await checkSocket(parts.slice(0, 6) as unknown as SocketCase);
  });
}

describe.skipIf(skip !== undefined)('sockets under the default policy', () => {
  socketCases(DEFAULT_CASES);
});

describe.skipIf(skip !== undefined)('sockets under rules of their own', () => {
  beforeAll(() => net.change(0, OWN_RULES));
  socketCases(OWN_CASES);
});

describe.skipIf(skip !== undefined)('sockets where denials are silent', () => {
  beforeAll(() => net.change(0, { ...DEFAULT_POLICY, denial: 'drop' }));
  socketCases(SILENT_CASES);
});

describe.skipIf(skip !== undefined)('sockets of an isolated VM', () => {
  beforeAll(() => net.change(0, ISOLATED_POLICY));
  afterAll(() => net.change(0, DEFAULT_POLICY));
  socketCases(ISOLATED_CASES);
});

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

describe.skipIf(skip !== undefined)('frames', () => {
  test.each(FRAME_CASES)('%s', async (_name, hex, outcome) => {
    await net.logs();
    await net.arrived();
    const before = await deniedCounts();
    await net.vms[0]!.peer.do('frame', { dev: 'eth0', frames: [hex] });
    await expectOutcome(outcome, before);
    const arrived = (await net.arrived()).join(' ');
    const token = Buffer.from('TOKEN').toString('hex');
    const passes = outcome !== 'unlogged' && 'allow' in outcome;
    expect(arrived.includes(token)).toBe(passes);
  });
});
