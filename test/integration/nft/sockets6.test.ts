/** What sockets of IPv6 get, one case a line: each asserts the outcome, and what was logged and counted. */
import { afterAll, beforeAll, describe } from 'vitest';
import {
  DEFAULT_POLICY,
  type EgressRule,
  ISOLATED_POLICY,
  type NetworkPolicy,
} from '../../../nft/index.ts';
import { HOST6, OTHER_SITE6, SITE6, type TestNetwork, useTestNetwork } from './network.ts';
import { type SocketCase, socketCases } from './sockets.ts';

const SITE4 = '203.0.113.10';
const GATEWAY = 'fd00:210::';
const GATEWAY4 = '10.210.0.1';
const OTHER_VM = 'fd00:210::3';
const OTHER_GATEWAY = 'fd00:210::2';
const PRIVATE = 'fd12:3456::1';
const METADATA = 'fd00:ec2::254';

let net: TestNetwork;
useTestNetwork((made) => (net = made), { vms6: 2 });

const REFUSED = 'ECONNREFUSED';
/** What Linux makes of ICMPv6 "administratively prohibited"; of IPv4's it makes EHOSTUNREACH. */
const PROHIBITED = 'EACCES';
const NO_PING = 'unreachable 1';
const policy = { deny: 'policy' } as const;
const reserved = { deny: 'reserved' } as const;
const host = { deny: 'host' } as const;
const vm = { deny: 'vm' } as const;

const DEFAULT_CASES: SocketCase[] = [
  ['http', 'tcp', SITE6, 80, 'ok', { allow: 1 }],
  ['https', 'tcp', SITE6, 443, 'ok', { allow: 1 }],
  ['ssh', 'tcp', SITE6, 22, 'ok', { allow: 2 }],
  ['git', 'tcp', SITE6, 9418, 'ok', { allow: 2 }],
  ['https elsewhere', 'tcp', OTHER_SITE6, 443, 'ok', { allow: 1 }],
  ['https by IPv4', 'tcp', SITE4, 443, 'ok', { allow: 1 }],
  ['mail', 'tcp', SITE6, 25, REFUSED, policy],
  ['DNS over TCP to another server', 'tcp', SITE6, 53, REFUSED, policy],
  ['DNS over TLS', 'tcp', SITE6, 853, REFUSED, policy],
  ['a database', 'tcp', SITE6, 5432, REFUSED, policy],
  ['QUIC', 'udp', SITE6, 443, PROHIBITED, policy],
  ['DNS to another server', 'udp', SITE6, 53, PROHIBITED, policy],
  ['NTP', 'udp', SITE6, 123, PROHIBITED, policy],
  ['ping', 'ping', SITE6, 0, NO_PING, policy],
  ['a unique local address', 'tcp', PRIVATE, 443, REFUSED, reserved],
  ['metadata service', 'tcp', METADATA, 80, REFUSED, reserved],
  ['metadata service, DNS', 'udp', METADATA, 53, PROHIBITED, reserved],
  ['NAT64', 'tcp', '64:ff9b::a9fe:a9fe', 80, REFUSED, reserved],
  ['6to4', 'tcp', '2002:a01:203::1', 443, REFUSED, reserved],
  ['Teredo', 'tcp', '2001::1', 443, REFUSED, reserved],
  ['a documentation address', 'tcp', '2001:db8::1', 443, REFUSED, reserved],
  ['a site-local address', 'tcp', 'fec0::1', 443, REFUSED, reserved],
  ['an address that was not given out', 'tcp', '4000::1', 443, REFUSED, reserved],
  ['ping to a unique local address', 'ping', PRIVATE, 0, NO_PING, reserved],
  ['UDP to a unique local address', 'udp', PRIVATE, 443, PROHIBITED, reserved],
  ['ping to the gateway', 'ping', GATEWAY, 0, 'echo', 'unlogged'],
  ['DNS at the gateway', 'udp', GATEWAY, 53, PROHIBITED, host],
  ['DNS over TCP at the gateway', 'tcp', GATEWAY, 53, REFUSED, host],
  ['DNS at the gateway of IPv4', 'udp', GATEWAY4, 53, 'echo', 'unlogged'],
  ['ssh of the host', 'tcp', GATEWAY, 22, REFUSED, host],
  ['a service of the host', 'tcp', GATEWAY, 8080, REFUSED, host],
  ['a closed port of the host', 'tcp', GATEWAY, 81, REFUSED, host],
  ['a UDP service of the host', 'udp', GATEWAY, 161, PROHIBITED, host],
  ['ssh at another address of the host', 'tcp', HOST6, 22, REFUSED, host],
  ['web at another address of the host', 'tcp', HOST6, 80, REFUSED, host],
  ['DNS at another address of the host', 'udp', HOST6, 53, PROHIBITED, host],
  ['ping to another address of the host', 'ping', HOST6, 0, NO_PING, host],
  ["ping to another VM's gateway", 'ping', OTHER_GATEWAY, 0, NO_PING, host],
  ["a service at another VM's gateway", 'tcp', OTHER_GATEWAY, 22, REFUSED, host],
  ['web of another VM', 'tcp', OTHER_VM, 80, REFUSED, vm],
  ['UDP to another VM', 'udp', OTHER_VM, 80, PROHIBITED, vm],
  ['ping to another VM', 'ping', OTHER_VM, 0, NO_PING, vm],
  ['an address of no VM', 'tcp', 'fd00:210::8000:1', 80, REFUSED, reserved],
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
const deny = { action: 'deny' } as const;

/** So many that they become a set. */
const MANY = Array.from({ length: 40 }, (_, index) => `3ffe:ffff:${index.toString(16)}:8000::/49`);

const MIXED: Partial<NetworkPolicy> = {
  rules: [
    allowRule(11, { ...deny, destination: addresses(OTHER_SITE6) }),
    allowRule(12, { ports: [443, [8000, 8100]] }),
    allowRule(13, { protocol: 'udp', ports: [443] }),
    allowRule(14, { protocol: 'icmp', destination: addresses('3ffe:ffff::/64', '203.0.113.10') }),
    allowRule(15, {
      ports: [5432, 25],
      destination: addresses(PRIVATE, 'fd12:3456::2', '10.1.2.3'),
    }),
    allowRule(16, { ports: [80], destination: addresses(SITE6, '203.0.113.0/24', ...MANY) }),
    allowRule(17, { ports: [22], destination: addresses('0.0.0.0/0') }),
    allowRule(18, { ports: [9418], destination: addresses('::/0') }),
    allowRule(19, { ports: [853], destination: addresses('::/0', '0.0.0.0/0') }),
    allowRule(20, { ports: [53], destination: addresses('203.0.113.10') }),
  ],
  exceptions: [PRIVATE, '10.1.2.3'],
};
const MIXED_CASES: SocketCase[] = [
  ['a port that is named', 'tcp', SITE6, 443, 'ok', { allow: 12 }],
  ['the same by IPv4', 'tcp', SITE4, 443, 'ok', { allow: 12 }],
  ['a port in a range', 'tcp', SITE6, 8080, 'ok', { allow: 12 }],
  ['an address that a rule before denies', 'tcp', OTHER_SITE6, 443, REFUSED, { deny: 11 }],
  ['UDP to what a TCP rule denies', 'udp', OTHER_SITE6, 443, 'echo', { allow: 13 }],
  ['UDP that is not named', 'udp', SITE6, 123, PROHIBITED, policy],
  ['ping that is named', 'ping', SITE6, 0, 'echo', { allow: 14 }],
  ['the same by IPv4', 'ping', SITE4, 0, 'echo', { allow: 14 }],
  ['ping by IPv4 that is not named', 'ping', '203.0.113.11', 0, 'unreachable 13', policy],
  ['an address in a long list', 'tcp', SITE6, 80, 'ok', { allow: 16 }],
  ['the same by IPv4', 'tcp', '203.0.113.11', 80, 'ok', { allow: 16 }],
  ['an address in no list', 'tcp', '3ffe:ffff::12', 80, REFUSED, policy],
  ['a private address by name', 'tcp', PRIVATE, 5432, 'ok', { allow: 15 }],
  ['one of IPv4 by name', 'tcp', '10.1.2.3', 5432, 'ok', { allow: 15 }],
  ['a private address by name, another port', 'tcp', PRIVATE, 443, REFUSED, policy],
  ['a private address that only a rule names', 'tcp', 'fd12:3456::2', 5432, REFUSED, reserved],
  ['metadata service', 'tcp', METADATA, 443, REFUSED, reserved],
  ['a rule for all of IPv4, by IPv4', 'tcp', SITE4, 22, 'ok', { allow: 17 }],
  ['a rule for all of IPv4, by IPv6', 'tcp', SITE6, 22, REFUSED, policy],
  ['a rule for all of IPv6, by IPv6', 'tcp', SITE6, 9418, 'ok', { allow: 18 }],
  ['a rule for all of IPv6, by IPv4', 'tcp', SITE4, 9418, REFUSED, policy],
  ['a rule for all of both, by IPv6', 'tcp', SITE6, 853, 'ok', { allow: 19 }],
  ['a rule for all of both, by IPv4', 'tcp', SITE4, 853, 'ok', { allow: 19 }],
  ['a rule for all of IPv6 opens no private address', 'tcp', METADATA, 9418, REFUSED, reserved],
  ['an address that a rule names by IPv4 only', 'tcp', SITE6, 53, REFUSED, policy],
];

const DENIED: Partial<NetworkPolicy> = {
  rules: [
    allowRule(31, { ...deny, destination: addresses('3ffe:ffff::/127', '203.0.113.10') }),
    allowRule(32, { ...deny, protocol: 'udp', destination: addresses('::/0') }),
    allowRule(33, { ...deny, protocol: 'icmp' }),
    allowRule(34, { ...deny, destination: addresses(OTHER_SITE6), ports: [22, 80] }),
    allowRule(35, { destination: addresses('::/0', '0.0.0.0/0') }),
    allowRule(36, { protocol: 'udp', destination: addresses('::/0', '0.0.0.0/0') }),
    allowRule(37, { protocol: 'icmp' }),
  ],
  exceptions: ['10.1.2.3'],
};
const DENIED_CASES: SocketCase[] = [
  ['a port that a list of ports denies', 'tcp', OTHER_SITE6, 80, REFUSED, { deny: 34 }],
  ['a port that it does not', 'tcp', OTHER_SITE6, 443, 'ok', { allow: 35 }],
  ['an address outside a range that is denied', 'tcp', SITE6, 443, 'ok', { allow: 35 }],
  ['the same rule by IPv4', 'tcp', SITE4, 443, REFUSED, { deny: 31 }],
  ['UDP, which is denied by IPv6', 'udp', SITE6, 443, PROHIBITED, { deny: 32 }],
  ['UDP, which is allowed by IPv4', 'udp', SITE4, 443, 'echo', { allow: 36 }],
  ['ping, which is denied', 'ping', SITE6, 0, NO_PING, { deny: 33 }],
  ['ping by IPv4, which is denied', 'ping', SITE4, 0, 'unreachable 13', { deny: 33 }],
  ['an exception by IPv4', 'tcp', '10.1.2.3', 443, 'ok', { allow: 35 }],
  ['no exception by IPv6', 'tcp', PRIVATE, 443, REFUSED, reserved],
  ['metadata service', 'tcp', METADATA, 80, REFUSED, reserved],
];

const SILENT_CASES: SocketCase[] = [
  ['a port that is named', 'tcp', SITE6, 443, 'ok', { allow: 1 }],
  ['TCP', 'tcp', SITE6, 25, 'timeout', policy],
  ['UDP', 'udp', SITE6, 53, 'timeout', policy],
  ['the host', 'tcp', GATEWAY, 22, 'timeout', host],
];

const isolated = { deny: 'isolated' } as const;
const ISOLATED_CASES: SocketCase[] = [
  ['https', 'tcp', SITE6, 443, REFUSED, isolated],
  ['UDP', 'udp', SITE6, 443, PROHIBITED, isolated],
  ['ping', 'ping', SITE6, 0, NO_PING, isolated],
  ['ping to the gateway', 'ping', GATEWAY, 0, NO_PING, host],
  ['another VM', 'tcp', OTHER_VM, 80, REFUSED, vm],
];

describe('sockets of IPv6 under the default policy', () => {
  socketCases(() => net, DEFAULT_CASES);
});

describe('sockets under rules that name addresses of both families', () => {
  beforeAll(() => net?.change(0, MIXED));
  socketCases(() => net, MIXED_CASES);
});

describe('sockets under rules that deny, with an exception of IPv4', () => {
  beforeAll(() => net?.change(0, DENIED));
  socketCases(() => net, DENIED_CASES);
});

describe('sockets of IPv6 where denials are silent', () => {
  beforeAll(() => net?.change(0, { ...DEFAULT_POLICY, denial: 'drop' }));
  socketCases(() => net, SILENT_CASES);
});

describe('sockets of IPv6 of an isolated VM', () => {
  beforeAll(() => net?.change(0, ISOLATED_POLICY));
  afterAll(() => net?.change(0, DEFAULT_POLICY));
  socketCases(() => net, ISOLATED_CASES);
});
