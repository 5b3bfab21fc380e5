/** What belongs to one VM: its chains with their rules, and its elements of the shared sets. */
import {
  CT_MARK,
  ct,
  type Expression,
  field,
  goto,
  hasAny,
  is,
  isNot,
  jump,
  L4,
  MARK,
  type Named,
  type NftCommand,
  put,
  RETURN,
  type SetObject,
  type Statement,
  STATE,
} from './json.ts';
import { GENERATION_MASK, ruleMark } from './marks.ts';
import {
  chainOfDevice,
  chainOfNew,
  chainOfPolicy,
  inet,
  limitOf,
  mapOfLimit,
  netdev,
  setOfRule,
  TABLE,
  type VmLimit,
} from './names.ts';
import { addSet, cidrElements, ruleIn } from './parts.ts';
import {
  DEFAULT_LIMITS,
  type EgressRule,
  type NetworkLimits,
  type PublishedPort,
  type VmNetwork,
} from './policy.ts';

/** Most addresses that a dynamic rule holds at a time. */
export const MAX_DYNAMIC_ADDRESSES = 4096;
/** Least burst of a bandwidth, bytes: some packets of the largest size that segmentation offload makes. */
const MIN_BURST_BYTES = 256 * 1024;

/** Elements, and the set or map they are of. */
export interface Elements {
  readonly set: Named;
  readonly elem: readonly Expression[];
}

/** The rule of the tap's own base chain: nothing gets in but by the guard. */
export function deviceChain(tap: string): NftCommand[] {
  const name = chainOfDevice(tap);
  return [
    {
      create: {
        chain: {
          ...netdev(name),
          type: 'filter',
          hook: 'ingress',
          dev: tap,
          prio: -500,
          policy: 'drop',
        },
      },
    },
    ruleIn('netdev')(name, goto('guard')),
  ];
}

/** Elements that say who the VM is. They live as long as the VM. */
export function identity({ tap, mac, guestAddress, gatewayAddress }: VmNetwork): Elements[] {
  return [
    { set: netdev('id4'), elem: [{ concat: [tap, mac, guestAddress] }] },
    { set: netdev('arpok'), elem: [{ concat: [tap, mac, guestAddress, gatewayAddress] }] },
    { set: inet('self'), elem: [{ concat: [tap, guestAddress] }] },
    { set: inet('taps'), elem: [tap] },
    { set: inet('sent'), elem: [tap] },
    { set: inet('received'), elem: [tap] },
    { set: inet('policies'), elem: [[tap, jump(chainOfPolicy(tap))]] },
  ];
}

/** Elements that follow from the policy. */
export function policyElements(vm: VmNetwork): Elements[] {
  const { tap, guestAddress, gatewayAddress, policy } = vm;
  const open = policy.mode === 'nat-filtered';
  const ownDns = policy.limits.dnsQueriesPerSecond !== DEFAULT_LIMITS.dnsQueriesPerSecond;
  return [
    { set: inet('dnsok'), elem: open ? [{ concat: [tap, gatewayAddress] }] : [] },
    { set: inet('nat'), elem: open ? [guestAddress] : [] },
    { set: inet('silent'), elem: policy.denial === 'drop' ? [tap] : [] },
    { set: inet('excepted'), elem: policy.exceptions.length > 0 ? [tap] : [] },
    { set: inet('owndns'), elem: ownDns ? [tap] : [] },
    { set: inet('ownlimits'), elem: hasOwnLimits(vm) ? [[tap, goto(chainOfNew(tap))]] : [] },
    { set: inet('live'), elem: liveMarks(vm).map((mark) => ({ concat: [tap, mark] })) },
    { set: inet('inward'), elem: policy.published.map((port) => inwardElement(vm, port)) },
  ];
}

/** Marks of the connections that may go on. */
export function liveMarks({ generation, policy }: VmNetwork): number[] {
  const ids = [...policy.rules.filter(({ action }) => action === 'allow'), ...policy.published];
  return ids.map(({ id }) => ruleMark(generation, id));
}

function inwardElement({ tap, generation }: VmNetwork, port: PublishedPort): Expression {
  return [{ concat: [tap, port.protocol, port.port] }, ruleMark(generation, port.id)];
}

/** The sets of the policy's dynamic rules, empty. */
export function dynamicSets({ tap, policy }: VmNetwork): NftCommand[] {
  return dynamicRuleIds(policy.rules).map((id) => addSet(dynamicSet(tap, id)));
}

/** The set of one dynamic rule. */
export function dynamicSet(tap: string, ruleId: number): SetObject {
  const name = inet(setOfRule(tap, ruleId));
  return { ...name, type: 'ipv4_addr', size: MAX_DYNAMIC_ADDRESSES, flags: ['timeout'] };
}

/** Ids of the rules whose addresses the resolver fills in. */
export function dynamicRuleIds(rules: readonly EgressRule[]): number[] {
  return rules.filter(({ destination }) => destination.kind === 'dynamic').map(({ id }) => id);
}

/**
 * Rules that say under which rule of the policy a connection is, by its mark; also for replies, after a change. A
 * connection that fits none keeps the mark it had, which is of no rule that is.
 */
export function policyRules(vm: VmNetwork): NftCommand[] {
  const { tap, generation, policy } = vm;
  const chain = chainOfPolicy(tap);
  const rule = ruleIn('inet');
  if (policy.mode === 'isolated') return [rule(chain, goto('deny_isolated'))];
  const ofGeneration = { '&': [CT_MARK, GENERATION_MASK] } as const;
  const toReserved: Statement[] = [
    is(originalAddress, '@reserved'),
    isNot(originalAddress, { set: cidrElements(policy.exceptions) }),
  ];
  return [
    rule(chain, hasAny(STATE, 'established'), isNot(ofGeneration, ruleMark(generation, 0)), RETURN),
    // Without exceptions it is the same for all, and was looked at already.
    ...(policy.exceptions.length === 0 ? [] : [rule(chain, ...toReserved, goto('deny_reserved'))]),
    ...policy.rules.flatMap((egress) => egressRules(vm, egress)),
  ];
}

// By the connection's first packet, not by this one: so the same rule fits replies too.
const originalAddress = ct('ip daddr', 'original');
const originalPort = ct('proto-dst', 'original');

/**
 * Some ports and addresses become a rule each, more of them a set. A set in a rule is one more thing of each VM's that
 * nft lists whenever it is called, and a rule is not.
 */
const MAX_SPELT_OUT = 8;

function egressRules(vm: VmNetwork, rule: EgressRule): NftCommand[] {
  // Nothing of IPv4 is named: no rule, which is not the same as a rule for every address.
  if (namesNothing(rule)) return [];
  const mark = ruleMark(vm.generation, rule.id);
  const end: Statement[] =
    rule.action === 'allow' ? [put(CT_MARK, mark), RETURN] : [put(MARK, mark), goto('deny_rule')];
  const { ports, addresses } = spellOut(
    mergedPorts(rule.ports).map(([first, last]) =>
      first === last ? first : { range: [first, last] },
    ),
    namedAddresses(rule),
  );
  const protocol: Statement =
    rule.protocol === 'icmp' ? is(field('icmp', 'type'), 'echo-request') : is(L4, rule.protocol);
  return ports.flatMap((port) =>
    addresses.map((address): NftCommand => ({
      add: {
        rule: {
          family: 'inet',
          table: TABLE,
          chain: chainOfPolicy(vm.tap),
          expr: [
            protocol,
            ...(port === undefined ? [] : [is(originalPort, port)]),
            ...(address === undefined ? [] : [is(originalAddress, address)]),
            ...destinationMatch(vm, rule),
            ...end,
          ],
          comment: rule.title,
        },
      },
    })),
  );
}

function namesNothing({ destination }: EgressRule): boolean {
  return destination.kind === 'addresses' && cidrElements(destination.cidrs).length === 0;
}

/** None where the rule names none, or all. */
function namedAddresses({ destination }: EgressRule): Expression[] {
  if (destination.kind !== 'addresses') return [];
  return destination.cidrs.includes('0.0.0.0/0') ? [] : cidrElements(destination.cidrs);
}

/** Each combination on its own, or one set for each; undefined: any. */
function spellOut(
  ports: readonly Expression[],
  addresses: readonly Expression[],
): Record<'ports' | 'addresses', readonly (Expression | undefined)[]> {
  const combinations = Math.max(ports.length, 1) * Math.max(addresses.length, 1);
  const parts = (some: readonly Expression[]) => {
    if (some.length === 0) return [undefined];
    return combinations > MAX_SPELT_OUT && some.length > 1 ? [{ set: some }] : some;
  };
  return { ports: parts(ports), addresses: parts(addresses) };
}

/** Ports in order, without overlaps: nft 1.0.6 refuses those in a set. */
function mergedPorts(ports: EgressRule['ports']): [number, number][] {
  const ranges = ports
    .map((port): [number, number] => (typeof port === 'number' ? [port, port] : [port[0], port[1]]))
    .sort((one, other) => one[0] - other[0]);
  const merged: [number, number][] = [];
  for (const range of ranges) {
    const last = merged.at(-1);
    if (last !== undefined && range[0] <= last[1]) last[1] = Math.max(last[1], range[1]);
    else merged.push(range);
  }
  return merged;
}

function destinationMatch({ tap, policy }: VmNetwork, rule: EgressRule): Statement[] {
  switch (rule.destination.kind) {
    case 'public':
      // What is an exception is for rules that name it. Without exceptions no reserved address gets this far.
      return rule.action === 'allow' && policy.exceptions.length > 0
        ? [isNot(originalAddress, '@reserved')]
        : [];
    case 'addresses':
      return [];
    case 'dynamic':
      return [is(originalAddress, `@${setOfRule(tap, rule.id)}`)];
  }
}

/** Whether the VM's bounds on connections are others than those that all VMs have. */
export function hasOwnLimits({ policy: { limits } }: VmNetwork): boolean {
  return (
    limits.newConnectionsPerSecond !== DEFAULT_LIMITS.newConnectionsPerSecond ||
    burstOf(limits) !== DEFAULT_LIMITS.newConnectionsBurst ||
    limits.connections !== DEFAULT_LIMITS.connections
  );
}

function burstOf(limits: NetworkLimits): number {
  return limits.newConnectionsBurst ?? (limits.newConnectionsPerSecond ?? 0) * 2;
}

/** The VM's own rules for new connections, where it has its own bounds. */
export function ownLimitRules(vm: VmNetwork): NftCommand[] {
  if (!hasOwnLimits(vm)) return [];
  const { limits } = vm.policy;
  const chain = chainOfNew(vm.tap);
  const rule = ruleIn('inet');
  const { newConnectionsPerSecond: rate, connections } = limits;
  const burst = burstOf(limits);
  return [
    ...(rate === undefined
      ? []
      : [rule(chain, { limit: { rate, per: 'second', burst, inv: true } }, goto('deny_rate'))]),
    ...(connections === undefined
      ? []
      : [rule(chain, { 'ct count': { val: connections, inv: true } }, goto('deny_connections'))]),
    rule(chain, goto('admitted')),
  ];
}

/** The VM's named limits. */
export function namedLimits(tap: string, limits: NetworkLimits): NftCommand[] {
  return (Object.keys(LIMIT_FIELDS) as VmLimit[]).flatMap((kind) => {
    const rate = limits[LIMIT_FIELDS[kind]];
    if (!hasNamedLimit(limits, kind) || rate === undefined) return [];
    const inBytes = { rate_unit: 'bytes', burst: burstBytes(rate), burst_unit: 'bytes' } as const;
    const unit = kind === 'dns' ? { burst: Math.min(rate * 2, 65535) } : inBytes;
    return [
      { add: { limit: { ...inet(limitOf(tap, kind)), rate, per: 'second', ...unit, inv: true } } },
      { add: { element: { ...inet(mapOfLimit(kind)), elem: [[tap, limitOf(tap, kind)]] } } },
    ];
  });
}

/** Whether the VM needs this limit of its own: it has one, and not the one that all share. */
export function hasNamedLimit(limits: NetworkLimits, kind: VmLimit): boolean {
  const rate = limits[LIMIT_FIELDS[kind]];
  return rate !== undefined && !(kind === 'dns' && rate === DEFAULT_LIMITS.dnsQueriesPerSecond);
}

/** Which field of the limits each named limit is made from. */
export const LIMIT_FIELDS = {
  up: 'uploadBytesPerSecond',
  down: 'downloadBytesPerSecond',
  dns: 'dnsQueriesPerSecond',
} as const satisfies Record<VmLimit, keyof NetworkLimits>;

function burstBytes(bytesPerSecond: number): number {
  return Math.max(MIN_BURST_BYTES, Math.floor(bytesPerSecond / 4));
}
