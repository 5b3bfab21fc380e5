/** The policy of one VM as rules: its own chain, which all that is not yet let through passes. */
import { icmpType, type IpFamily, originalDestination, V4, V6 } from './families.ts';
import {
  CT_MARK,
  ct,
  type Expression,
  goto,
  hasAny,
  is,
  isNot,
  L4,
  MARK,
  NFPROTO,
  type NftCommand,
  put,
  RETURN,
  type Statement,
  STATE,
} from './json.ts';
import { GENERATION_MASK, ruleMark } from './marks.ts';
import { chainOfPolicy, HOST_NETWORKS, setOfRule, TABLE } from './names.ts';
import { cidrElements, ruleIn } from './parts.ts';
import type { EgressRule, NetworkPolicy, VmNetwork } from './policy.ts';

/** IPv4, and IPv6 where the VM has it. */
export function familiesOf({ v6 }: VmNetwork): readonly IpFamily[] {
  return v6 === undefined ? [V4] : [V4, V6];
}

/** Whether the policy opens reserved addresses of a family that the VM has. */
export function hasExceptions(vm: VmNetwork): boolean {
  const { exceptions } = vm.policy;
  return vm.v6 === undefined
    ? exceptions.some((cidr) => !cidr.includes(':'))
    : exceptions.length > 0;
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
  return [
    rule(chain, hasAny(STATE, 'established'), isNot(ofGeneration, ruleMark(generation, 0)), RETURN),
    // Without exceptions it is the same for all, and was looked at already.
    ...(hasExceptions(vm)
      ? familiesOf(vm).map((one) => rule(chain, ...toReserved(policy, one), goto('deny_reserved')))
      : []),
    ...policy.rules.flatMap((egress) => egressRules(vm, egress)),
  ];
}

function toReserved(policy: NetworkPolicy, family: IpFamily): Statement[] {
  const address = originalDestination(family);
  const exceptions = cidrElements(policy.exceptions, family.version);
  return [
    is(address, `@reserved${family.suffix}`),
    ...(exceptions.length === 0 ? [] : [isNot(address, { set: exceptions })]),
  ];
}

/**
 * Some ports and addresses become a rule each, more of them a set. A set in a rule is one more thing of each VM's that
 * nft lists whenever it is called, and a rule is not.
 */
const MAX_SPELT_OUT = 8;

function egressRules(vm: VmNetwork, rule: EgressRule): NftCommand[] {
  const mark = ruleMark(vm.generation, rule.id);
  const isOfHost = rule.destination.kind === 'host-networks';
  const end: Statement[] =
    rule.action === 'allow'
      ? [put(CT_MARK, mark), RETURN]
      : // An open connection must not keep the mark of what allowed it: that rule stands.
        [...(isOfHost ? [put(CT_MARK, mark)] : []), put(MARK, mark), goto('deny_rule')];
  const chain = chainOfPolicy(vm.tap);
  const made = (...expr: Statement[]): NftCommand => ({
    add: { rule: { family: 'inet', table: TABLE, chain, expr, comment: rule.title } },
  });
  return destinations(vm, rule).flatMap((to) => {
    const { ports, addresses } = spellOut(portsOf(rule), to.addresses);
    return ports.flatMap((port) =>
      addresses.map((address) =>
        made(
          to.protocol,
          ...(port === undefined ? [] : [is(ct('proto-dst', 'original'), port)]),
          ...(address === undefined ? [] : [is(originalDestination(to.family), address)]),
          ...to.match,
          ...end,
        ),
      ),
    );
  });
}

/** Where a rule lets packets go. */
interface Destination {
  /** Of `addresses`. */
  readonly family: IpFamily;
  readonly protocol: Statement;
  /** Empty: all, as far as `match` says nothing else. */
  readonly addresses: readonly Expression[];
  readonly match: readonly Statement[];
}

/**
 * By family where they differ, and one for both where they do not. None for a family of which the rule names no
 * address, which is not the same as all.
 */
function destinations(vm: VmNetwork, rule: EgressRule): Destination[] {
  const families = familiesOf(vm);
  const found = families.flatMap((family) => destinationOf(family, vm, rule));
  const [first] = found;
  const isOpen = ({ addresses, match }: Destination) =>
    addresses.length === 0 && match.length === 0;
  if (families.length === 1 || rule.protocol === 'icmp' || first === undefined) return found;
  if (found.length === families.length && found.every(isOpen)) return [first];
  return found.map((one) =>
    isOpen(one) ? { ...one, match: [is(NFPROTO, one.family.nfproto)] } : one,
  );
}

function destinationOf(family: IpFamily, vm: VmNetwork, rule: EgressRule): Destination[] {
  const { destination } = rule;
  const address = originalDestination(family);
  const protocol: Statement =
    rule.protocol === 'icmp' ? is(icmpType(family), 'echo-request') : is(L4, rule.protocol);
  const all = { family, protocol, addresses: [], match: [] };
  switch (destination.kind) {
    case 'public':
      // What is an exception is for rules that name it. Without exceptions no reserved address gets this far.
      return rule.action === 'allow' && hasExceptions(vm)
        ? [{ ...all, match: [isNot(address, `@reserved${family.suffix}`)] }]
        : [all];
    case 'addresses': {
      if (destination.cidrs.includes(family.everything)) return [all];
      const addresses = cidrElements(destination.cidrs, family.version);
      return addresses.length === 0 ? [] : [{ ...all, addresses }];
    }
    case 'host-networks':
      return family.version === 4 ? [] : [{ ...all, match: [is(address, `@${HOST_NETWORKS}`)] }];
    case 'dynamic':
      return [{ ...all, match: [is(address, `@${setOfRule(vm.tap, rule.id, family.version)}`)] }];
  }
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
function portsOf({ ports }: EgressRule): Expression[] {
  const ranges = ports
    .map((port): [number, number] => (typeof port === 'number' ? [port, port] : [port[0], port[1]]))
    .sort((one, other) => one[0] - other[0]);
  const merged: [number, number][] = [];
  for (const range of ranges) {
    const last = merged.at(-1);
    if (last !== undefined && range[0] <= last[1]) last[1] = Math.max(last[1], range[1]);
    else merged.push(range);
  }
  return merged.map(([first, last]) => (first === last ? first : { range: [first, last] }));
}
