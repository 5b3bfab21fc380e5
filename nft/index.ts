/**
 * A VM's network policy as nftables rules. See docs/network-rules.md.
 *
 * Builders (`baseTable`, `addVm`, `changePolicy`, `allowAddress`, `removeVm`) are pure and give a transaction;
 * {@link NftClient} applies it.
 */
export {
  type AddressRange,
  contains,
  firstMeeting,
  type IpVersion,
  overlaps,
  parseAddress,
  parseAddress6,
  parseCidr,
  parseCidr6,
  versionOf,
  withoutNested,
} from './address.ts';
export { baseTable, type BaseOptions, DEFAULT_LOG_RATES, removeBase } from './base.ts';
export {
  addBridgeGuard,
  BRIDGED_TAP_NAME,
  type BridgedVm,
  removeBridgeGuard,
} from './bridge-guard.ts';
export { checkPolicy, checkVm, MAX_LIMIT, MAX_PORTS, MAX_RULES, MAX_TITLE_BYTES } from './check.ts';
export { type CounterGroup, NftClient } from './client.ts';
export { setHostNetworks } from './host-networks.ts';
export type { NftTransaction } from './json.ts';
export { KeptTable, keptTableText } from './kept-table.ts';
export {
  DENIAL_CAUSES,
  type DenialCause,
  MARK_BASE,
  MARK_MASK,
  MAX_GENERATION,
  type MarkMeaning,
  readLogPrefix,
  readMark,
} from './marks.ts';
export { LENT_LOG_GROUP, LOG_GROUP, TABLE, TAP_GROUP } from './names.ts';
export { numberRules, type PortDraft, type RuleDraft } from './number-rules.ts';
export type { LogRates } from './parts.ts';
export {
  DEFAULT_LIMITS,
  DEFAULT_POLICY,
  DEFAULT_RULES,
  type EgressDestination,
  type EgressRule,
  ISOLATED_POLICY,
  type NetworkLimits,
  type NetworkMode,
  type NetworkPolicy,
  type PortRange,
  type PublishedPort,
  RESERVED_RANGES,
  RESERVED_RANGES6,
  UNROUTABLE_RANGES,
  UNROUTABLE_RANGES6,
  type VmAddresses6,
  type VmNetwork,
} from './policy.ts';
export { remainsOf, removeVm, type VmRemains } from './remove.ts';
export type { Count, VmCounters } from './reply.ts';
export type { NftCallOptions } from './run.ts';
export { addVm, allowAddress, changePolicy } from './vm.ts';
