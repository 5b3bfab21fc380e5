/** A VM's rules while it lives: added before its tap goes up, and changed as it runs. */
import { isDeepStrictEqual } from 'node:util';
import { type IpVersion, parseAddress, parseAddress6 } from './address.ts';
import { checkInteger, checkTap, checkVm, fail } from './check.ts';
import type { Expression, NftCommand, NftTransaction } from './json.ts';
import { ruleMark } from './marks.ts';
import {
  chainOfNew,
  chainOfPolicy,
  inet,
  limitOf,
  mapOfLimit,
  setOfRule,
  VM_LIMITS,
  type VmLimit,
} from './names.ts';
import {
  addChain,
  addElements,
  deleteChain,
  deleteElements,
  discardElements,
  flushChain,
} from './parts.ts';
import type { EgressRule, VmNetwork } from './policy.ts';
import {
  deviceChain,
  dynamicRuleIds,
  dynamicSets,
  hasNamedLimit,
  type Elements,
  identity,
  LIMIT_FIELDS,
  namedLimits,
  ownLimitRules,
  policyElements,
} from './vm-parts.ts';
import { familiesOf, policyRules } from './policy-rules.ts';

/** Longest that an address stays open without being looked up again: one day, s. */
export const MAX_ADDRESS_TTL_S = 86_400;
/** Most addresses that one answer opens. */
export const MAX_ADDRESSES = 256;

/**
 * All rules of a VM. To be applied when the tap is there (the guard is bound to it), is in {@link TAP_GROUP}, and is
 * not up yet; the base must be there.
 *
 * @throws NetworkPolicyError
 */
export function addVm(vm: VmNetwork): NftTransaction {
  checkVm(vm);
  const { tap, policy } = vm;
  return [
    ...deviceChain(tap),
    addChain(inet(chainOfPolicy(tap))),
    ...dynamicSets(vm),
    ...ownLimits(vm),
    ...policyRules(vm),
    ...namedLimits(tap, policy.limits),
    ...[...identity(vm), ...policyElements(vm)].flatMap(added),
  ];
}

/**
 * From one policy, or generation, to another at one instant. Connections of rules that are in both (by id) live
 * on; others live on where a rule of the new policy allows them, under that rule; the rest is cut.
 *
 * @throws NetworkPolicyError also where `before` and `after` are not the same VM, or a rule has changed under
 * its id: its connections would live on unasked
 */
export function changePolicy(before: VmNetwork, after: VmNetwork): NftTransaction {
  checkVm(before);
  checkVm(after);
  checkSameVm(before, after);
  const { tap } = after;
  const kept = new Set(dynamicRuleIds(before.policy.rules));
  const wanted = new Set(dynamicRuleIds(after.policy.rules));
  const sameGeneration = before.generation === after.generation;
  const [limitsBefore, limitsAfter] = changedOwnLimits(before, after);
  // Of another generation nothing is kept, addresses neither.
  const gone = [...kept].filter((id) => !wanted.has(id));
  const renewed = sameGeneration ? [] : [...kept].filter((id) => wanted.has(id));
  const setsOf = (ids: readonly number[]) =>
    ids.flatMap((id) => familiesOf(after).map(({ version }) => inet(setOfRule(tap, id, version))));
  return [
    ...dynamicSets(after),
    flushChain(inet(chainOfPolicy(tap))),
    ...policyRules(after),
    ...setsOf(gone).map((set): NftCommand => ({ delete: { set } })),
    ...setsOf(renewed).map((set): NftCommand => ({ flush: { set } })),
    ...limitsBefore,
    ...changedLimits(before, after),
    ...changedElements(policyElements(before), policyElements(after)),
    ...limitsAfter,
    ...discardElements(inet('denied'), goneDenyMarks(before, after)),
  ];
}

function checkSameVm(before: VmNetwork, after: VmNetwork): void {
  for (const field of ['tap', 'mac', 'guestAddress', 'gatewayAddress', 'isLent'] as const) {
    if (before[field] === after[field]) continue;
    fail(field, after[field], `was ${before[field]} before`, 'remove the VM and add it anew');
  }
  if (!isDeepStrictEqual(before.v6, after.v6)) {
    fail('v6', after.v6, 'was another before', 'remove the VM and add it anew');
  }
  if (before.generation !== after.generation) return;
  const known = new Map<number, unknown>([
    ...before.policy.rules.map((rule) => [rule.id, meaning(rule)] as const),
    ...before.policy.published.map((port) => [port.id, port] as const),
  ]);
  const changed = (id: number, now: unknown) =>
    known.has(id) && !isDeepStrictEqual(known.get(id), now);
  const hint = 'give a rule that has changed an id that the VM had not before';
  for (const [index, rule] of after.policy.rules.entries()) {
    if (changed(rule.id, meaning(rule))) {
      fail(`policy.rules[${index}].id`, rule.id, 'was another rule before', hint);
    }
  }
  for (const [index, port] of after.policy.published.entries()) {
    if (changed(port.id, port)) {
      fail(`policy.published[${index}].id`, port.id, 'was another port or rule before', hint);
    }
  }
}

/** What a rule lets through; its title is for people. */
function meaning({ action, protocol, ports, destination }: EgressRule): unknown {
  return { action, protocol, ports, destination };
}

function ownLimits(vm: VmNetwork): NftCommand[] {
  const rules = ownLimitRules(vm);
  return rules.length === 0 ? [] : [addChain(inet(chainOfNew(vm.tap))), ...rules];
}

/** Of the VM's own bounds on connections: what to do before, and after, the elements change. */
function changedOwnLimits(before: VmNetwork, after: VmNetwork): [NftCommand[], NftCommand[]] {
  const rules = ownLimitRules(after);
  const old = ownLimitRules(before);
  // The kernel's count of connections begins anew with the rule, so it stays where it can.
  if (isDeepStrictEqual(rules, old)) return [[], []];
  const chain = inet(chainOfNew(after.tap));
  const emptied = old.length === 0 ? [] : [flushChain(chain)];
  return rules.length === 0
    ? [emptied, [deleteChain(chain)]]
    : [[...emptied, ...ownLimits(after)], []];
}

function changedLimits(before: VmNetwork, after: VmNetwork): NftCommand[] {
  const { tap } = after;
  const changed = VM_LIMITS.filter((kind) => {
    const field = LIMIT_FIELDS[kind];
    return before.policy.limits[field] !== after.policy.limits[field];
  });
  const only = (vm: VmNetwork, kind: VmLimit) => ({
    [LIMIT_FIELDS[kind]]: vm.policy.limits[LIMIT_FIELDS[kind]],
  });
  return changed.flatMap((kind) => [
    ...(hasNamedLimit(before.policy.limits, kind) ? deletedLimit(tap, kind) : []),
    ...namedLimits(tap, only(after, kind)),
  ]);
}

function deletedLimit(tap: string, kind: VmLimit): NftCommand[] {
  return [
    deleteElements(inet(mapOfLimit(kind)), [[tap, limitOf(tap, kind)]]),
    { delete: { limit: inet(limitOf(tap, kind)) } },
  ];
}

/** Only the difference: elements that stay keep their counters. */
function changedElements(before: readonly Elements[], after: readonly Elements[]): NftCommand[] {
  return after.flatMap(({ set, elem }, index) => {
    const old = before[index]!.elem;
    const without = (some: readonly Expression[], others: readonly Expression[]) =>
      some.filter((one) => !others.some((other) => isDeepStrictEqual(one, other)));
    const gone = without(old, elem);
    const come = without(elem, old);
    return [
      ...(gone.length === 0 ? [] : [deleteElements(set, gone)]),
      ...(come.length === 0 ? [] : [addElements(set, come)]),
    ];
  });
}

function denyMarks({ generation, policy }: VmNetwork): number[] {
  return policy.rules
    .filter(({ action }) => action === 'deny')
    .map(({ id }) => ruleMark(generation, id));
}

function goneDenyMarks(before: VmNetwork, after: VmNetwork): Expression[] {
  const stay = new Set(denyMarks(after));
  return denyMarks(before)
    .filter((mark) => !stay.has(mark))
    .map((mark) => ({ concat: [after.tap, mark] }));
}

function added({ set, elem }: Elements): NftCommand[] {
  return elem.length === 0 ? [] : [addElements(set, elem)];
}

/**
 * Opens addresses to a VM's dynamic rule, for as long as the answer that named them may be kept. Where they are open
 * already, their time begins anew. Reserved addresses stay shut by the policy itself.
 *
 * @param addresses of IPv4; of IPv6 for a VM that has it only: else there is nothing to open, and the transaction fails
 * @param ttlS seconds, bounded by a day
 * @throws NetworkPolicyError
 */
export function allowAddress(o: {
  tap: string;
  ruleId: number;
  addresses: readonly string[];
  ttlS: number;
}): NftTransaction {
  checkTap(o.tap);
  checkInteger('ruleId', o.ruleId, 1, 0xfff);
  checkInteger('ttlS', o.ttlS, 1, MAX_ADDRESS_TTL_S);
  checkInteger('addresses.length', o.addresses.length, 1, MAX_ADDRESSES);
  for (const [index, address] of o.addresses.entries()) {
    if (addressVersion(address) !== undefined) continue;
    fail(`addresses[${index}]`, address, 'is no IP address', 'open single addresses only');
  }
  return ([4, 6] as const).flatMap((version) => opened({ ...o, version }));
}

function opened(o: Parameters<typeof allowAddress>[0] & { version: IpVersion }): NftCommand[] {
  const addresses = [...new Set(o.addresses)].filter((one) => addressVersion(one) === o.version);
  if (addresses.length === 0) return [];
  const set = inet(setOfRule(o.tap, o.ruleId, o.version));
  const timed = addresses.map((val) => ({ elem: { val, timeout: o.ttlS } }));
  // Adding what is there does not renew its timeout (kernels before 6.12).
  return [addElements(set, timed), deleteElements(set, addresses), addElements(set, timed)];
}

function addressVersion(address: string): IpVersion | undefined {
  if (parseAddress(address) !== undefined) return 4;
  return parseAddress6(address) === undefined ? undefined : 6;
}
