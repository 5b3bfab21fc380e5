/** What sockets get, one case a line: each asserts the outcome, and what was logged and counted. */
import { afterAll, beforeAll, describe } from 'vitest';
import {
  DEFAULT_POLICY,
  type EgressRule,
  ISOLATED_POLICY,
  type NetworkPolicy,
} from '../../../nft/index.ts';
import { type TestNetwork, useTestNetwork } from './network.ts';
import { type SocketCase, socketCases } from './sockets.ts';

const SITE = '203.0.113.10';
const GATEWAY = '10.210.0.1';
const OTHER_VM = '10.210.0.6';
const OTHER_GATEWAY = '10.210.0.5';
const HOST = '198.51.100.1';

let net: TestNetwork;
useTestNetwork((made) => (net = made));

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

describe('sockets under the default policy', () => {
  socketCases(() => net, DEFAULT_CASES);
});

describe('sockets under rules of their own', () => {
  beforeAll(() => net?.change(0, OWN_RULES));
  socketCases(() => net, OWN_CASES);
});

describe('sockets where denials are silent', () => {
  beforeAll(() => net?.change(0, { ...DEFAULT_POLICY, denial: 'drop' }));
  socketCases(() => net, SILENT_CASES);
});

describe('sockets of an isolated VM', () => {
  beforeAll(() => net?.change(0, ISOLATED_POLICY));
  afterAll(() => net?.change(0, DEFAULT_POLICY));
  socketCases(() => net, ISOLATED_CASES);
});
