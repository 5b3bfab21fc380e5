/** VMs on the host's network. */
export { attachVm, type AttachOptions, detachVm, stateKey, sweepTaps } from './attach.ts';
export { DEFAULT_POOL, GATEWAY_MAC, parsePool, TAP_PREFIX } from './endpoint.ts';
export { type NetworkEntry, readEntryOf } from './entry.ts';
export {
  awaitNames,
  changeEgress,
  countersOf,
  cutConnections,
  joinNetwork,
  leaveNetwork,
  requireEntry,
  sweepNetwork,
} from './join.ts';
export { type EgressOptions, makePolicy } from './policy.ts';
export { type EgressRequest, listPresets, resolveEgress } from './presets.ts';
export { isForwarding, setUpNetwork, type SetupStep, undoNetworkSetup } from './setup.ts';
export { rotatedLogPath } from './traffic/log-file.ts';
export type { ConnectionRecord, DnsRecord, TrafficRecord } from './traffic/record.ts';
