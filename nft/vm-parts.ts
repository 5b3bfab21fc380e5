/** What belongs to one VM: its own sets, limits and chains but for the policy's, and its elements of the shared sets. */
import type { IpFamily } from './families.ts';
import {
  type Expression,
  goto,
  jump,
  type Named,
  type NftCommand,
  type SetObject,
} from './json.ts';
import { ruleMark } from './marks.ts';
import {
  chainOfDevice,
  chainOfNew,
  chainOfPolicy,
  inet,
  limitOf,
  mapOfLimit,
  netdev,
  setOfRule,
  type VmLimit,
} from './names.ts';
import { addSet, ruleIn } from './parts.ts';
import {
  DEFAULT_LIMITS,
  type EgressRule,
  type NetworkLimits,
  type PublishedPort,
  type VmNetwork,
} from './policy.ts';
import { familiesOf, hasExceptions } from './policy-rules.ts';

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
export function identity(vm: VmNetwork): Elements[] {
  const { tap, mac, guestAddress, gatewayAddress, v6, isLent } = vm;
  const ifLent = isLent === true ? [tap] : [];
  return [
    { set: netdev('id4'), elem: [{ concat: [tap, mac, guestAddress] }] },
    { set: netdev('id6'), elem: v6 === undefined ? [] : [{ concat: [tap, mac, v6.guestAddress] }] },
    { set: netdev('v6'), elem: v6 === undefined ? [] : [tap] },
    { set: netdev('arpok'), elem: [{ concat: [tap, mac, guestAddress, gatewayAddress] }] },
    { set: inet('self'), elem: [{ concat: [tap, guestAddress] }] },
    { set: inet('self6'), elem: v6 === undefined ? [] : [{ concat: [tap, v6.guestAddress] }] },
    { set: netdev('lent'), elem: ifLent },
    { set: inet('lent'), elem: ifLent },
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
  const open6 = open ? vm.v6 : undefined;
  const ownDns = policy.limits.dnsQueriesPerSecond !== DEFAULT_LIMITS.dnsQueriesPerSecond;
  return [
    { set: inet('dnsok'), elem: open ? [{ concat: [tap, gatewayAddress] }] : [] },
    { set: inet('nat'), elem: open ? [guestAddress] : [] },
    { set: inet('gateway6'), elem: open6 ? [{ concat: [tap, open6.gatewayAddress] }] : [] },
    { set: inet('nat6'), elem: open6 ? [open6.guestAddress] : [] },
    { set: inet('silent'), elem: policy.denial === 'drop' ? [tap] : [] },
    { set: inet('excepted'), elem: hasExceptions(vm) ? [tap] : [] },
    { set: inet('owndns'), elem: ownDns ? [tap] : [] },
    { set: inet('ownlimits'), elem: hasOwnLimits(vm) ? [[tap, goto(chainOfNew(tap))]] : [] },
    { set: inet('live'), elem: liveMarks(vm).map((mark) => ({ concat: [tap, mark] })) },
    { set: inet('public6'), elem: publicMarks(vm).map((mark) => ({ concat: [tap, mark] })) },
    { set: inet('inward'), elem: policy.published.map((port) => inwardElement(vm, port)) },
  ];
}

/** Marks of the connections that may go on. */
export function liveMarks({ generation, policy }: VmNetwork): number[] {
  const ids = [...policy.rules.filter(({ action }) => action === 'allow'), ...policy.published];
  return ids.map(({ id }) => ruleMark(generation, id));
}

/** Those of them that a VM with IPv6 has by a rule for public addresses. */
function publicMarks({ v6, generation, policy: { rules } }: VmNetwork): number[] {
  if (v6 === undefined) return [];
  return rules
    .filter(({ action, destination }) => action === 'allow' && destination.kind === 'public')
    .map(({ id }) => ruleMark(generation, id));
}

function inwardElement({ tap, generation }: VmNetwork, port: PublishedPort): Expression {
  return [{ concat: [tap, port.protocol, port.port] }, ruleMark(generation, port.id)];
}

/** The sets of the policy's dynamic rules, empty. */
export function dynamicSets(vm: VmNetwork): NftCommand[] {
  return dynamicRuleIds(vm.policy.rules).flatMap((id) =>
    familiesOf(vm).map((family) => addSet(dynamicSet(vm.tap, id, family))),
  );
}

/** The set of one dynamic rule for addresses of one family. */
export function dynamicSet(tap: string, ruleId: number, family: IpFamily): SetObject {
  const name = inet(setOfRule(tap, ruleId, family.version));
  return { ...name, type: family.addressType, size: MAX_DYNAMIC_ADDRESSES, flags: ['timeout'] };
}

/** Ids of the rules whose addresses the resolver fills in. */
export function dynamicRuleIds(rules: readonly EgressRule[]): number[] {
  return rules.filter(({ destination }) => destination.kind === 'dynamic').map(({ id }) => id);
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
