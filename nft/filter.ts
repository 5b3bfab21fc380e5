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
  type NftCommand,
  OIF,
  put,
  type Statement,
  STATE,
} from './json.ts';
import { causeRules, denyRules, LOGGED_CAUSES } from './denials.ts';
import { ALLOW_PREFIX, causeMark, GUARD_MARK, MARK_BASE } from './marks.ts';
import {
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
  logTo,
  over,
  ruleIn,
} from './parts.ts';
import { DEFAULT_LIMITS, RESERVED_RANGES } from './policy.ts';

/** DNS connections by TCP of one VM at a time. */
const DNS_CONNECTIONS = 64;
/** Echo requests of one VM to its gateway per second. */
const PINGS_PER_SECOND = 20;
/** Longest that a budget is remembered without use, seconds. */
const BUDGET_TIMEOUT_S = 60;
/** Just before others' chains of the same hook, which have `filter` (0), `raw` (-300) and `srcnat` (100). */
const BEFORE = 5;

const rule = ruleIn('inet');
const ICMP_ERRORS = { set: ['destination-unreachable', 'time-exceeded', 'parameter-problem'] };

/** The chains that all VMs share, written anew. */
export function filterChains(rates: LogRates): NftCommand[] {
  const chains: Record<string, Statement[][]> = {
    forward: forwardRules(),
    from_vm: fromVmRules(),
    from_vm_related: relatedRules(),
    new: newRules(),
    to_vm: toVmRules(),
    reply: replyRules(),
    admitted: [[jump('log_allow')], [goto('pass')]],
    log_allow: [logAllow(rates)],
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
    output: outputRules(),
    to_gateway: toGatewayRules(),
    deny: denyRules(),
    ...Object.fromEntries(
      LOGGED_CAUSES.map((cause) => [`deny_${cause}`, causeRules(cause, rates)]),
    ),
    raw_pre: rawRules(),
    raw_out: [untracked('sport', OIF, 'saddr')],
    postrouting: [[is(field('ip', 'saddr'), '@nat'), isNot(OIF, '@taps'), { masquerade: null }]],
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
    ...['silent', 'excepted', 'owndns'].map((name) => addSet({ ...inet(name), type: 'ifname' })),
    addSet({ ...inet('self'), type: ['ifname', 'ipv4_addr'] }),
    addSet({ ...inet('dnsok'), type: ['ifname', 'ipv4_addr'] }),
    addSet({ ...inet('nat'), type: 'ipv4_addr' }),
    addSet({ ...inet('live'), type: ['ifname', 'mark'], ...counted }),
    addSet({ ...inet('sent'), type: 'ifname', ...counted }),
    addSet({ ...inet('received'), type: 'ifname', ...counted }),
    addSet({
      ...inet('reserved'),
      type: 'ipv4_addr',
      flags: ['interval'],
      elem: cidrElements(RESERVED_RANGES),
    }),
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

const fromGroup = (): Statement => is(meta('iifgroup'), TAP_GROUP);
const toGroup = (): Statement => is(meta('oifgroup'), TAP_GROUP);

function forwardRules(): Statement[][] {
  const outward = is(concat(IIF, CT_MARK), '@live');
  const inward = is(concat(OIF, CT_MARK), '@live');
  return [
    // Connections that were let in and still are allowed: nearly all packets end here. "new" is UDP that
    // nobody answers; it has its mark from its first packet.
    [outward, hasAny(STATE, 'new', 'established'), isNot(meta('oifgroup'), TAP_GROUP), goto('up')],
    [inward, hasAny(STATE, 'established'), is(DIRECTION, 'reply'), goto('down')],
    [inward, hasAny(STATE, 'related'), is(DIRECTION, 'reply'), is(L4, 'icmp'), goto('down')],
    // A published port's connections come from outside, by way of a redirection.
    [
      inward,
      hasAny(STATE, 'new', 'established'),
      is(DIRECTION, 'original'),
      hasAny(ct('status'), 'dnat'),
      goto('down'),
    ],
    [is(IIF, '@taps'), goto('from_vm')],
    [is(OIF, '@taps'), goto('to_vm')],
    [fromGroup(), goto('deny_stray')],
    [toGroup(), DROP],
  ];
}

/** The first packet of a connection, and all that belongs to none that is allowed. */
function fromVmRules(): Statement[][] {
  const flags = { '&': [field('tcp', 'flags'), ['fin', 'syn', 'rst', 'ack']] } as const;
  return [
    [is(meta('nfproto'), 'ipv6'), goto('deny_ipv6')],
    [is(OIF, '@taps'), goto('deny_vm')],
    [toGroup(), goto('deny_vm')],
    [hasAny(STATE, 'invalid', 'untracked'), goto('deny_state')],
    [hasAny(STATE, 'related'), goto('from_vm_related')],
    [is(DIRECTION, 'reply'), goto('deny_cut')],
    [hasAny(ct('status'), 'dnat'), goto('deny_dnat')],
    [hasAny(STATE, 'new'), is(L4, 'tcp'), isNot(flags, 'syn'), goto('deny_state')],
    [isNot(IIF, '@excepted'), toReserved(), goto('deny_reserved')],
    // The VM's own rules set the connection's mark and come back.
    [{ vmap: { key: IIF, data: '@policies' } }],
    [is(concat(IIF, CT_MARK), '@live'), goto('new')],
    [hasAny(STATE, 'established'), goto('deny_cut')],
    [goto('deny_policy')],
  ];
}

/** By the connection's first packet: so the same rules fit replies too. */
const toReserved = (): Statement => is(ct('ip daddr', 'original'), '@reserved');

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
function relatedRules(): Statement[][] {
  const allowed = [is(concat(IIF, CT_MARK), '@live'), is(field('icmp', 'type'), ICMP_ERRORS)];
  return [
    [...allowed, is(concat(IIF, ct('ip saddr', 'original')), '@self'), goto('up')],
    [...allowed, is(concat(IIF, ct('ip saddr', 'reply')), '@self'), goto('up')],
    [goto('deny_related')],
  ];
}

function toVmRules(): Statement[][] {
  const toPort = concat(OIF, L4, field('th', 'dport'));
  const published = [
    is(DIRECTION, 'original'),
    hasAny(ct('status'), 'dnat'),
    put(CT_MARK, { map: { key: toPort, data: '@inward' } }),
  ];
  const own = is(concat(OIF, ct('ip saddr', 'original')), '@self');
  return [
    [is(meta('nfproto'), 'ipv6'), goto('deny_inward')],
    [hasAny(STATE, 'established'), is(DIRECTION, 'reply'), own, jump('reply')],
    [hasAny(STATE, 'new'), ...published, goto('admitted')],
    [hasAny(STATE, 'established'), ...published, goto('down')],
    [goto('deny_inward')],
  ];
}

/**
 * A reply in a connection whose rule is gone: after a change of the policy it may be another rule's, and the remote
 * end may be the first to speak.
 */
function replyRules(): Statement[][] {
  return [
    [isNot(OIF, '@excepted'), toReserved(), goto('deny_inward')],
    [{ vmap: { key: OIF, data: '@policies' } }],
    [is(concat(OIF, CT_MARK), '@live'), goto('down')],
  ];
}

function logAllow({ allowedPerSecond: rate, allowedBurst: burst }: LogRates): Statement[] {
  return [
    put(MARK, CT_MARK),
    {
      set: {
        op: 'update',
        elem: IIF,
        set: '@allowq',
        stmt: [{ limit: { rate, per: 'second', burst } }],
      },
    },
    logTo(ALLOW_PREFIX),
  ];
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

/** Of the host a VM sees its resolver, and what the host itself began. */
function toHostRules(): Statement[][] {
  const ours = is(concat(IIF, ct('ip saddr', 'reply')), '@self');
  return [
    [is(meta('nfproto'), 'ipv6'), goto('deny_ipv6')],
    [is(concat(IIF, field('ip', 'daddr')), '@dnsok'), jump('to_gateway')],
    [hasAny(STATE, 'established'), is(DIRECTION, 'reply'), ours, goto('up')],
    [hasAny(STATE, 'related'), ours, is(field('icmp', 'type'), ICMP_ERRORS), ACCEPT],
    [hasAny(STATE, 'related'), goto('deny_related')],
    [goto('deny_host')],
  ];
}

/** What the host's own programs send to a VM counts as any: published ports. The resolver's datagrams do not. */
function outputRules(): Statement[][] {
  return [[is(OIF, '@taps'), hasAny(STATE, 'new', 'established', 'related'), goto('down')]];
}

function toGatewayRules(): Statement[][] {
  const dnsByTcp = is(field('tcp', 'dport'), 53);
  const tooManyConnections: Statement = {
    set: {
      op: 'add',
      elem: IIF,
      set: '@dnsconns',
      stmt: [{ 'ct count': { val: DNS_CONNECTIONS, inv: true } }],
    },
  };
  const dnsByUdp = is(field('udp', 'dport'), 53);
  const rate = DEFAULT_LIMITS.dnsQueriesPerSecond;
  return [
    [dnsByUdp, isNot(IIF, '@owndns'), over('dnsq', IIF, rate, rate * 2), goto('deny_dns')],
    [dnsByUdp, { limit: { map: { key: IIF, data: `@${mapOfLimit('dns')}` } } }, goto('deny_dns')],
    [dnsByUdp, ACCEPT],
    [dnsByTcp, hasAny(STATE, 'invalid', 'untracked', 'related'), goto('deny_state')],
    [dnsByTcp, hasAny(STATE, 'new'), tooManyConnections, goto('deny_connections')],
    [dnsByTcp, ACCEPT],
    [
      is(field('icmp', 'type'), 'echo-request'),
      over('pingq', IIF, PINGS_PER_SECOND),
      goto('deny_rate'),
    ],
    [is(field('icmp', 'type'), 'echo-request'), ACCEPT],
  ];
}
