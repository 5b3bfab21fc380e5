/**
 * Table `netdev qmp_agent`: what a frame must be before the host's IP layer sees it. One base chain for each tap
 * (nft 1.0.6 loses a chain with a list of devices when one of them goes), and one chain of rules for all.
 *
 * `ether type` is compared as it is in the frame: a tagged frame, VID 0 too, is no IPv4 here, while the
 * kernel's IP layer would take it for such.
 */
import {
  ACCEPT,
  concat,
  DROP,
  field,
  goto,
  IIF,
  is,
  isNot,
  jump,
  L4,
  MARK,
  meta,
  type NftCommand,
  put,
  RETURN,
  type Statement,
} from './json.ts';
import { type DenialCause, GUARD_CAUSES, GUARD_MARK } from './marks.ts';
import { ICMP6_ERRORS } from './families.ts';
import { UNROUTABLE_RANGES, UNROUTABLE_RANGES6 } from './policy.ts';
import {
  addChain,
  addSet,
  cidrElements,
  countDenied,
  flushChain,
  logDenied,
  type LogRates,
  over,
  ruleIn,
} from './parts.ts';
import { netdev, TABLE } from './names.ts';

/** ARP frames of one VM per second that are let through. */
const ARP_PER_SECOND = 50;

/** Next headers of IPv6: of a fragment, and hop-by-hop options, routing, destination options (RFC 8200). */
const FRAGMENT_HEADER = 44;
const EXTENSION_HEADERS = [0, 43, 60];

/** Longest that a VM's budget of log lines is remembered without use, seconds. */
const BUDGET_TIMEOUT_S = 60;

/** The table, with sets and no chains. */
export function guardSets(): NftCommand[] {
  const perPacket = { size: 65535, flags: ['timeout'], timeout: BUDGET_TIMEOUT_S } as const;
  return [
    { add: { table: { family: 'netdev', name: TABLE } } },
    addSet({ ...netdev('id4'), type: ['ifname', 'ether_addr', 'ipv4_addr'] }),
    addSet({ ...netdev('id6'), type: ['ifname', 'ether_addr', 'ipv6_addr'] }),
    ...['v6', 'lent'].map((name) => addSet({ ...netdev(name), type: 'ifname' })),
    addSet({ ...netdev('arpok'), type: ['ifname', 'ether_addr', 'ipv4_addr', 'ipv4_addr'] }),
    addSet({ ...netdev('logq'), type: 'ifname', ...perPacket }),
    addSet({ ...netdev('arpq'), type: 'ifname', ...perPacket }),
    addSet({ ...netdev('denied'), type: ['ifname', 'mark'], size: 65535, flags: ['timeout'] }),
    addSet({ ...netdev('logged'), type: 'ifname', size: 65535, flags: ['timeout'] }),
  ];
}

/** The chains that all VMs share, written anew. */
export function guardChains(rates: LogRates): NftCommand[] {
  const rule = ruleIn('netdev');
  return [
    ...[
      ...['guard', 'guard6', 'guard6_icmp', 'guard_arp', 'guard_arp_rate'],
      ...GUARD_CAUSES.map((cause) => `deny_${cause}`),
    ].flatMap((name) => [addChain(netdev(name)), flushChain(netdev(name))]),
    ...GUARD_CAUSES.flatMap((cause) => denyChain(cause, rates)),
    ...guardRules().map((statements) => rule('guard', ...statements)),
    ...guard6Rules().map((statements) => rule('guard6', ...statements)),
    ...icmp6Rules().map((statements) => rule('guard6_icmp', ...statements)),
    ...arpRules().map((statements) => rule('guard_arp', ...statements)),
    ...arpRateRules().map((statements) => rule('guard_arp_rate', ...statements)),
  ];
}

function guardRules(): Statement[][] {
  const etherType = field('ether', 'type');
  const unroutable = { set: cidrElements(UNROUTABLE_RANGES) };
  const source = concat(IIF, field('ether', 'saddr'), field('ip', 'saddr'));
  return [
    [is(etherType, 'arp'), goto('guard_arp')],
    [is(etherType, 'ip6'), goto('guard6')],
    [isNot(etherType, 'ip'), goto('deny_ethertype')],
    [isNot(source, '@id4'), goto('deny_spoof')],
    [isNot(meta('pkttype'), 'host'), goto('deny_broadcast')],
    [isNot(field('ip', 'hdrlength'), 5), goto('deny_options')],
    // Offset and "more fragments"; "don't fragment" is the bit above.
    [isNot({ '&': [field('ip', 'frag-off'), 0x3fff] }, 0), goto('deny_fragment')],
    // The kernel would answer those itself, before any rule on forwarding could see them.
    [{ match: { op: '<', left: field('ip', 'ttl'), right: 2 } }, goto('deny_ttl')],
    [is(field('ip', 'daddr'), unroutable), goto('deny_address')],
    // The mark says that the guard was there: where it is not, routing can refuse (see docs/network-rules.md).
    [is(L4, { set: ['icmp', 'tcp', 'udp'] }), put(MARK, GUARD_MARK), ACCEPT],
    [goto('deny_protocol')],
  ];
}

/**
 * IPv6: the same, and no header between that of IPv6 and that of TCP, UDP or ICMP. It is asked for the next header as
 * it is written _and_ for the protocol as the kernel finds it, which it does in a header that is whole only.
 */
function guard6Rules(): Statement[][] {
  const source = concat(IIF, field('ether', 'saddr'), field('ip6', 'saddr'));
  const unroutable = { set: cidrElements(UNROUTABLE_RANGES6, 6) };
  const next = field('ip6', 'nexthdr');
  const passes = (protocol: string): Statement[] => [
    ...[is(next, protocol), is(L4, protocol), put(MARK, GUARD_MARK), ACCEPT],
  ];
  return [
    [isNot(IIF, '@v6'), goto('deny_ipv6')],
    // First, as each guest sends some when it starts, from no address: that is no forgery.
    [is(L4, 'ipv6-icmp'), jump('guard6_icmp')],
    [isNot(source, '@id6'), goto('deny_spoof')],
    [isNot(meta('pkttype'), 'host'), goto('deny_broadcast')],
    [{ match: { op: '<', left: field('ip6', 'hoplimit'), right: 2 } }, goto('deny_ttl')],
    [is(field('ip6', 'daddr'), unroutable), goto('deny_address')],
    ...['tcp', 'udp', 'ipv6-icmp'].map(passes),
    [is(next, FRAGMENT_HEADER), goto('deny_fragment')],
    ...EXTENSION_HEADERS.map((header) => [is(next, header), goto('deny_options')]),
    [goto('deny_protocol')],
  ];
}

/** Neighbours are permanent on both ends, there are no routers to find and no groups to join. */
function icmp6Rules(): Statement[][] {
  const type = field('icmpv6', 'type');
  const echo = { range: [128, 129] } as const;
  return [[is(type, ICMP6_ERRORS), RETURN], [is(type, echo), RETURN], [goto('deny_icmpv6')]];
}

/**
 * Only between the VM's own addresses and its gateway's. It is asked what a frame is, and never what it is not: a
 * frame that ends too early has no such field, and a rule that looks at one does not match, whichever way it asks.
 */
function arpRules(): Statement[][] {
  const arp = (name: string) => field('arp', name);
  const claim = concat(IIF, arp('saddr ether'), arp('saddr ip'), arp('daddr ip'));
  return [
    [
      is(concat(IIF, field('ether', 'saddr'), arp('saddr ip')), '@id4'),
      is(claim, '@arpok'),
      ...[is(arp('htype'), 1), is(arp('ptype'), 'ip'), is(arp('hlen'), 6), is(arp('plen'), 4)],
      is(arp('operation'), { set: ['request', 'reply'] }),
      goto('guard_arp_rate'),
    ],
    [goto('deny_arp')],
  ];
}

/** No more than a machine needs. */
function arpRateRules(): Statement[][] {
  return [[over('arpq', IIF, ARP_PER_SECOND), goto('deny_arp')], [ACCEPT]];
}

/** Silent: whoever forges frames gets no answer, and none could be sent to a forged address. */
function denyChain(cause: DenialCause, rates: LogRates): NftCommand[] {
  const rule = ruleIn('netdev');
  return [
    ...logDenied(cause, IIF, rates).map((statements) => rule(`deny_${cause}`, ...statements)),
    rule(`deny_${cause}`, countDenied(IIF), DROP),
  ];
}
