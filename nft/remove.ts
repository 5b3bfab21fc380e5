/** A VM's rules go: all of its own, and nothing else; whatever of them is still there. */
import { V4, V6 } from './families.ts';
import type { Expression, NftCommand, NftTransaction } from './json.ts';
import { causeMark, FILTER_CAUSES, GUARD_CAUSES, ruleMark } from './marks.ts';
import {
  chainOfDevice,
  chainOfNew,
  chainOfPolicy,
  inet,
  limitOf,
  mapOfLimit,
  netdev,
  VM_LIMITS,
  type VmLimit,
} from './names.ts';
import {
  addChain,
  addElements,
  addSet,
  deleteChain,
  deleteElements,
  discardElements,
  flushChain,
} from './parts.ts';
import type { VmNetwork } from './policy.ts';
import {
  dynamicRuleIds,
  dynamicSet,
  type Elements,
  hasNamedLimit,
  identity,
  policyElements,
} from './vm-parts.ts';

/** What is in the tables of one VM: known from what was added, or read from the kernel. */
export interface VmRemains {
  readonly tap: string;
  /** Of the shared sets and maps. */
  readonly elements: readonly Elements[];
  /** Rules with a set for addresses of IPv4, and with one for those of IPv6. */
  readonly dynamicRuleIds: readonly number[];
  readonly dynamicRuleIds6: readonly number[];
  readonly limits: readonly VmLimit[];
}

/**
 * What `addVm` put into the tables for this VM, and what its packets added. The VM as it is now: where a change may
 * have been missed (a crash), read with `NftClient.remains` what there is.
 */
export function remainsOf(vm: VmNetwork): VmRemains {
  const { tap, generation, policy } = vm;
  const denying = policy.rules.filter(({ action }) => action === 'deny');
  const denied = [
    ...FILTER_CAUSES.map(causeMark),
    ...denying.map(({ id }) => ruleMark(generation, id)),
  ];
  return {
    tap,
    elements: [...identity(vm), ...policyElements(vm), ...counted(tap, denied)],
    dynamicRuleIds: dynamicRuleIds(policy.rules),
    dynamicRuleIds6: vm.v6 === undefined ? [] : dynamicRuleIds(policy.rules),
    limits: VM_LIMITS.filter((kind) => hasNamedLimit(policy.limits, kind)),
  };
}

function counted(tap: string, marks: readonly number[]): Elements[] {
  const keys = (some: readonly number[]): Expression[] =>
    some.map((mark) => ({ concat: [tap, mark] }));
  return [
    { set: inet('denied'), elem: keys(marks) },
    { set: inet('logged'), elem: [tap] },
    { set: inet('conns'), elem: [tap] },
    { set: inet('dnsconns'), elem: [tap] },
    { set: netdev('denied'), elem: keys(GUARD_CAUSES.map(causeMark)) },
    { set: netdev('logged'), elem: [tap] },
  ];
}

/**
 * All of one VM gone. No error where some of it, or all, is gone already; the base must be there. To be applied before
 * the tap goes, and when the VM's process is dead.
 */
export function removeVm(remains: VmRemains): NftTransaction {
  const { tap, elements, limits } = remains;
  const dynamic = [
    ...remains.dynamicRuleIds.map((id) => dynamicSet(tap, id, V4)),
    ...remains.dynamicRuleIds6.map((id) => dynamicSet(tap, id, V6)),
  ];
  const chains = [inet(chainOfPolicy(tap)), inet(chainOfNew(tap)), netdev(chainOfDevice(tap))];
  // Nothing may be deleted that is not there, but all may be added that is: so first all is there.
  return [
    ...chains.map(addChain),
    ...dynamic.map(addSet),
    ...limits.flatMap((kind) => discardedLimit(tap, kind)),
    ...elements.flatMap(({ set, elem }) => discardElements(set, elem)),
    ...chains.map(flushChain),
    ...chains.map(deleteChain),
    ...dynamic.map(({ name }): NftCommand => ({ delete: { set: inet(name) } })),
  ];
}

function discardedLimit(tap: string, kind: VmLimit): NftCommand[] {
  const name = limitOf(tap, kind);
  const pair = [[tap, name]];
  return [
    // Of one that is there the figures stay.
    { add: { limit: { ...inet(name), rate: 1, per: 'second', burst: 1 } } },
    addElements(inet(mapOfLimit(kind)), pair),
    deleteElements(inet(mapOfLimit(kind)), pair),
    { delete: { limit: inet(name) } },
  ];
}
