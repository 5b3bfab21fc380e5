/** VMs on the host's network. */
export {
  DEFAULT_NETWORKS,
  type DefaultNetwork,
  defaultNetwork,
  probeTaps,
  type TapObstacle,
  tapObstacle,
} from './default-mode.ts';
export { bridgedTapOf, joinBridge, mendBridgeGuards } from './bridge.ts';
export { readEntryOf } from './entry.ts';
export { advertisedInterfaces, hasDefaultRoute6, isForwarding } from './forwarding.ts';
export { hostPools } from './host-settings.ts';
export {
  awaitNames,
  changeEgress,
  countersOf,
  cutConnections,
  joinNetwork,
  leaveNetwork,
  sweepNetwork,
} from './join.ts';
export { userIdOf } from './lent/user-id.ts';
export { type LanOptions, parseLan } from './lan.ts';
export { effectiveLimits, type LimitOptions, type Limits } from './limits.ts';
export { checkReach, type EgressOptions, makePolicy } from './policy.ts';
export { type EgressRequest, listPresets, resolveEgress } from './presets.ts';
export { PathLab } from './path-lab.ts';
export { RulesLab } from './rules-lab.ts';
export { setUpNetwork, undoNetworkSetup } from './setup.ts';
export {
  type CaptureConfig,
  type CaptureEnd,
  type CaptureOptions,
  type CaptureResult,
  type CaptureStats,
  checkCapture,
  type NetworkCapture,
} from './traffic/capture-options.ts';
export { FollowedCapture, type TapNow } from './traffic/followed-capture.ts';
export { PacketCapture } from './traffic/packet-capture.ts';
export { MAX_SNAPLEN } from './traffic/pcap.ts';
export { readLog } from './traffic/read-log.ts';
export { parseAllPublished, publishedText } from './publish.ts';
export { routesInto } from './host-routes.ts';
export { GUEST_SERVER, TapLab } from './tap-lab.ts';
export type { ConnectionRecord, DnsRecord, TrafficRecord } from './traffic/record.ts';
