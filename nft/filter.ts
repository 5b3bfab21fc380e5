/**
 * Table `inet qmp_agent`: what of a VM's packets may go where. All VMs share these chains; what belongs to one VM
 * is found by one lookup of its tap's name, so that a packet costs the same with two VMs as with a thousand.
 */
import {
  ACCEPT,
  concat,
  ct,
  CT_MARK,
  DIRECTION,
  DROP,
  field,
  goto,
  hasAny,
  IIF,
  is,
  isNot,
  jump,
  L4,
  MARK,
  meta,
  NFPROTO,
  type NftCommand,
  OIF,
  put,
  type Statement,
  STATE,
} from './json.ts';
import { causeRules, denyRules, LOGGED_CAUSES } from './denials.ts';
import { icmpType, type IpFamily, originalDestination, senderOf, V4, V6 } from './families.ts';
import { outputRules, toGatewayRules, toHost6Rules, toHostRules } from './host-rules.ts';
import { ALLOW_PREFIX, causeMark, GUARD_MARK, MARK_BASE } from './marks.ts';
import {
  HOST_NETWORKS,
  inet,
  SCHEMA_CHAIN_PREFIX,
  SCHEMA_VERSION,
  TABLE,
  TAP_GROUP,
  VM_LIMITS,
  mapOfLimit,
} from './names.ts';
import {
  addChain,
  addMap,
  addSet,
  cidrElements,
  countDenied,
  flushChain,
  type LogRates,
  logRules,
  over,
  ruleIn,
  within,
} from './parts.ts';
import { DEFAULT_LIMITS, RESERVED_RANGES, RESERVED_RANGES6 } from './policy.ts';

/** Longest that a budget is remembered without use, seconds. */
const BUDGET_TIMEOUT_S = 60;
/** Just before others' chains of the same hook, which have `filter` (0), `raw` (-300) and `srcnat` (100). */
const BEFORE = 5;

const rule = ruleIn('inet');

/** The chains that all VMs share, written anew. */
export function filterChains(rates: LogRates): NftCommand[] {
  const chains: Record<string, Statement[][]> = {
    forward: forwardRules(),
    near: nearRules(),
    asked: askedRules(),
    ...familyChains(V4),
    ...familyChains(V6),
    new: newRules(),
    admitted: [[jump('log_allow')], [goto('pass')]],
    log_allow: logAllow(rates),
    pass: [[is(IIF, '@taps'), goto('up')], [goto('down')]],
    up: countedRules('up'),
    down: countedRules('down'),
    over_up: overRules('upload'),
    over_down: overRules('download'),
    input: [
      [is(IIF, '@taps'), goto('to_host')],
      [fromGroup(), goto('deny_stray')],
    ],
    to_host: toHostRules(),
    to_host6: toHost6Rules(),
    output: outputRules(),
    to_gateway: toGatewayRules(),
    deny: denyRules(),
    ...Object.fromEntries(
      LOGGED_CAUSES.map((cause) => [`deny_${cause}`, causeRules(cause, rates)]),
    ),
    raw_pre: rawRules(),
    raw_out: [untracked('sport', OIF, 'saddr')],
    postrouting: [masqueradeRule(V4), masqueradeRule(V6)],
  };
  return [
    addChain(inet(`${SCHEMA_CHAIN_PREFIX}${SCHEMA_VERSION}`)),
    ...Object.keys(chains).flatMap((name) => [
      addChain({ ...inet(name), ...BASE_CHAINS[name] }),
      flushChain(inet(name)),
    ]),
    ...Object.entries(chains).flatMap(([name, rules]) =>
      rules.map((statements) => rule(name, ...statements)),
    ),
  ];
}

/** Chains that each family has of its own: for they look at addresses, or at ICMP. */
function familyChains(family: IpFamily): Record<string, Statement[][]> {
  const { suffix } = family;
  return {
    [`from_vm${suffix}`]: fromVmRules(family),
    [`from_vm${suffix}_related`]: relatedRules(family),
    [`to_vm${suffix}`]: toVmRules(family),
    [`reply${suffix}`]: replyRules(family),
  };
}

function masqueradeRule({ header, suffix }: IpFamily): Statement[] {
  return [is(field(header, 'saddr'), `@nat${suffix}`), isNot(OIF, '@taps'), { masquerade: null }];
}

function rawRules(): Statement[][] {
  return [
    [is(IIF, '@taps'), is(MARK, GUARD_MARK), put(MARK, MARK_BASE)], // elsewhere it is somebody else's mark
    // Of a connection whose addresses are translated, the kernel would drop it right after this, in silence.
    [is(field('icmp', 'type'), 'redirect'), is(IIF, '@taps'), goto('deny_related')],
    untracked('dport', IIF, 'daddr'),
  ];
}

/** DNS between a VM and its gateway: with a new port each time, it would be half of the connection table. */
const untracked = (port: string, device: typeof IIF, address: string): Statement[] => [
  is(field('udp', port), 53),
  is(concat(device, field('ip', address)), '@dnsok'),
  { notrack: null },
];

const BASE_CHAINS: Record<string, object> = {
  raw_pre: { type: 'filter', hook: 'prerouting', prio: -300 - BEFORE, policy: 'accept' },
  raw_out: { type: 'filter', hook: 'output', prio: -300 - BEFORE, policy: 'accept' },
  forward: { type: 'filter', hook: 'forward', prio: -BEFORE, policy: 'accept' },
  input: { type: 'filter', hook: 'input', prio: -BEFORE, policy: 'accept' },
  output: { type: 'filter', hook: 'output', prio: -BEFORE, policy: 'accept' },
  postrouting: { type: 'nat', hook: 'postrouting', prio: 100 - BEFORE, policy: 'accept' },
};

/** The table, with sets and no chains. */
export function filterSets(): NftCommand[] {
  const dynamic = { size: 65535, flags: ['timeout'] } as const;
  const budget = { ...dynamic, timeout: BUDGET_TIMEOUT_S };
  const counted = { stmt: [{ counter: null }] };
  return [
    { add: { table: { family: 'inet', name: TABLE } } },
    addSet({ ...inet('taps'), type: 'ifname' }),
    ...['lent', 'silent', 'excepted', 'owndns'].map((name) =>
      addSet({ ...inet(name), type: 'ifname' }),
    ),
    addSet({ ...inet('dnsok'), type: ['ifname', V4.addressType] }),
    addSet({ ...inet('gateway6'), type: ['ifname', V6.addressType] }),
    ...familySets(V4, RESERVED_RANGES),
    ...familySets(V6, RESERVED_RANGES6),
    addSet({ ...inet(HOST_NETWORKS), type: V6.addressType, flags: ['interval'] }),
    addSet({ ...inet('public6'), type: ['ifname', 'mark'] }),
    addSet({ ...inet('live'), type: ['ifname', 'mark'], ...counted }),
    addSet({ ...inet('sent'), type: 'ifname', ...counted }),
    addSet({ ...inet('received'), type: 'ifname', ...counted }),
    addSet({ ...inet('denied'), type: ['ifname', 'mark'], ...dynamic }),
    addSet({ ...inet('logged'), type: 'ifname', ...dynamic }),
    // Counts of connections cannot be kept in a set with timeouts.
    ...['conns', 'dnsconns'].map((name) =>
      addSet({ ...inet(name), type: 'ifname', size: dynamic.size }),
    ),
    ...['logq', 'allowq', 'rejectq', 'pingq', 'newq', 'dnsq'].map((name) =>
      addSet({ ...inet(name), type: 'ifname', ...budget }),
    ),
    ...VM_LIMITS.map((kind) => addMap({ ...inet(mapOfLimit(kind)), type: 'ifname', map: 'limit' })),
    addMap({ ...inet('inward'), type: ['ifname', 'inet_proto', 'inet_service'], map: 'mark' }),
    addMap({ ...inet('ownlimits'), type: 'ifname', map: 'verdict' }),
    addMap({ ...inet('policies'), type: 'ifname', map: 'verdict' }),
  ];
}

function familySets(family: IpFamily, reserved: readonly string[]): NftCommand[] {
  const { version, suffix, addressType: type } = family;
  const elem = cidrElements(reserved, version);
  return [
    addSet({ ...inet(`self${suffix}`), type: ['ifname', type] }),
    addSet({ ...inet(`nat${suffix}`), type }),
    addSet({ ...inet(`reserved${suffix}`), type, flags: ['interval'], elem }),
  ];
}

const fromGroup = (): Statement => is(meta('iifgroup'), TAP_GROUP);
const toGroup = (): Statement => is(meta('oifgroup'), TAP_GROUP);

function forwardRules(): Statement[][] {
  const outward = is(concat(IIF, CT_MARK), '@live');
  const inward = is(concat(OIF, CT_MARK), '@live');
  return [
    [is(NFPROTO, 'ipv6'), is(originalDestination(V6), `@${HOST_NETWORKS}`), jump('near')],
    // Connections that were let in and still are allowed: nearly all packets end here. "new" is UDP that
    // nobody answers; it has its mark from its first packet.
    [outward, hasAny(STATE, 'new', 'established'), isNot(meta('oifgroup'), TAP_GROUP), goto('up')],
    [inward, hasAny(STATE, 'established'), is(DIRECTION, 'reply'), goto('down')],
    ...[V4, V6].map(({ icmpProtocol }) => [
      ...[is(L4, icmpProtocol), inward, hasAny(STATE, 'related'), is(DIRECTION, 'reply')],
      goto('down'),
    ]),
    // A published port's connections come from outside, by way of a redirection.
    [
      inward,
      hasAny(STATE, 'new', 'established'),
      is(DIRECTION, 'original'),
      hasAny(ct('status'), 'dnat'),
      goto('down'),
    ],
    [goto('asked')],
  ];
}

/** Into a network of the host's own, under a rule for public addresses: it was none when the connection was let in. */
function nearRules(): Statement[][] {
  return [IIF, OIF].map((device) => [is(concat(device, CT_MARK), '@public6'), goto('asked')]);
}

/** What the policy has to be asked about, or nobody. */
function askedRules(): Statement[][] {
  return [
    [is(IIF, '@taps'), goto('from_vm')],
    [is(OIF, '@taps'), goto('to_vm')],
    [fromGroup(), goto('deny_stray')],
    [toGroup(), DROP],
  ];
}

/** The first packet of a connection, and all that belongs to none that is allowed. */
function fromVmRules(family: IpFamily): Statement[][] {
  const { suffix } = family;
  const isOwn6 = concat(IIF, field('ip6', 'saddr'));
  const flags = { '&': [field('tcp', 'flags'), ['fin', 'syn', 'rst', 'ack']] } as const;
  return [
    family.version === 4
      ? [is(NFPROTO, 'ipv6'), goto('from_vm6')]
      : [isNot(isOwn6, '@self6'), goto('deny_ipv6')],
    [is(OIF, '@taps'), goto('deny_vm')],
    [toGroup(), goto('deny_vm')],
    [hasAny(STATE, 'invalid', 'untracked'), goto('deny_state')],
    [hasAny(STATE, 'related'), goto(`from_vm${suffix}_related`)],
    [is(DIRECTION, 'reply'), goto('deny_cut')],
    [hasAny(ct('status'), 'dnat'), goto('deny_dnat')],
    [hasAny(STATE, 'new'), is(L4, 'tcp'), isNot(flags, 'syn'), goto('deny_state')],
    [isNot(IIF, '@excepted'), toReserved(family), goto('deny_reserved')],
    // The VM's own rules set the connection's mark and come back.
    [{ vmap: { key: IIF, data: '@policies' } }],
    [is(concat(IIF, CT_MARK), '@live'), goto('new')],
    [hasAny(STATE, 'established'), goto('deny_cut')],
    [goto('deny_policy')],
  ];
}

const toReserved = (family: IpFamily): Statement =>
  is(originalDestination(family), `@reserved${family.suffix}`);

/** What a new connection has to pass that a rule lets through. */
function newRules(): Statement[][] {
  const { newConnectionsPerSecond: rate, newConnectionsBurst: burst, connections } = DEFAULT_LIMITS;
  const count = { 'ct count': { val: connections, inv: true } } as const;
  return [
    // Under another rule than before; it has been let in already.
    [hasAny(STATE, 'established'), goto('pass')],
    [{ vmap: { key: IIF, data: '@ownlimits' } }],
    [over('newq', IIF, rate, burst), goto('deny_rate')],
    [{ set: { op: 'add', elem: IIF, set: '@conns', stmt: [count] } }, goto('deny_connections')],
    [goto('admitted')],
  ];
}

/** An ICMP error may quote only a connection in which the VM itself takes part, and that is allowed. */
function relatedRules(family: IpFamily): Statement[][] {
  const allowed = [is(concat(IIF, CT_MARK), '@live'), is(icmpType(family), family.icmpErrors)];
  const self = `@self${family.suffix}`;
  return [
    [...allowed, is(concat(IIF, senderOf(family, 'original')), self), goto('up')],
    [...allowed, is(concat(IIF, senderOf(family, 'reply')), self), goto('up')],
    [goto('deny_related')],
  ];
}

function toVmRules(family: IpFamily): Statement[][] {
  const own = is(concat(OIF, senderOf(family, 'original')), `@self${family.suffix}`);
  const reply = jump(`reply${family.suffix}`);
  const replies = [hasAny(STATE, 'established'), is(DIRECTION, 'reply'), own, reply];
  // Ports are published by IPv4 only.
  if (family.version === 6) return [replies, [goto('deny_inward')]];
  const toPort = concat(OIF, L4, field('th', 'dport'));
  const published = [
    is(DIRECTION, 'original'),
    hasAny(ct('status'), 'dnat'),
    put(CT_MARK, { map: { key: toPort, data: '@inward' } }),
  ];
  return [
    [is(NFPROTO, 'ipv6'), goto('to_vm6')],
    replies,
    [hasAny(STATE, 'new'), ...published, goto('admitted')],
    [hasAny(STATE, 'established'), ...published, goto('down')],
    [goto('deny_inward')],
  ];
}

/**
 * A reply in a connection whose rule is gone: after a change of the policy it may be another rule's, and the remote
 * end may be the first to speak.
 */
function replyRules(family: IpFamily): Statement[][] {
  return [
    [isNot(OIF, '@excepted'), toReserved(family), goto('deny_inward')],
    [{ vmap: { key: OIF, data: '@policies' } }],
    [is(concat(OIF, CT_MARK), '@live'), goto('down')],
  ];
}

/** Lent taps have no published ports: whatever is begun with one comes from it. */
function logAllow({ allowedPerSecond, allowedBurst }: LogRates): Statement[][] {
  return logRules({
    prefix: ALLOW_PREFIX,
    key: IIF,
    budget: within('allowq', IIF, allowedPerSecond, allowedBurst),
    before: [put(MARK, CT_MARK)],
  });
}

/** What is let through: bounded where the VM has a bound, and counted. */
function countedRules(way: 'up' | 'down'): Statement[][] {
  const [key, counted] = way === 'up' ? [IIF, '@sent'] : [OIF, '@received'];
  return [
    [{ limit: { map: { key, data: `@${mapOfLimit(way)}` } } }, goto(`over_${way}`)],
    [is(key, counted), ACCEPT],
    [ACCEPT],
  ];
}

function overRules(cause: 'upload' | 'download'): Statement[][] {
  const key = cause === 'upload' ? IIF : OIF;
  return [[put(MARK, causeMark(cause)), countDenied(key), DROP]];
}
