/** What users see of `vm.network`. */
import type { Count, EgressRule, VmAddresses6 } from '../../nft/index.ts';
import type {
  CaptureOptions,
  EgressOptions,
  EgressRequest,
  LanOptions,
  LimitOptions,
  Limits,
  NetworkCapture,
  TrafficRecord,
} from '../network/index.ts';
import type { NetworkMode } from '../network/mode.ts';
import type { WaitOptions } from './wait-options.ts';

/** Packets and bytes. */
export type TrafficCount = Count;

/** A rule as it is applied, the first that fits decides. Its title is the flag it comes from. */
export interface NetworkRuleInfo extends Pick<
  EgressRule,
  'title' | 'action' | 'protocol' | 'ports'
> {
  /** Both ways, since it was added. */
  readonly count: TrafficCount | undefined;
}

/** A VM's network as it is now. */
export interface NetworkInfo {
  /** Undefined: the VM has no network device. */
  readonly mode: NetworkMode | undefined;
  /** Presets are names by now. */
  readonly egress: EgressOptions | undefined;
  /** On a bridge: who it is there. */
  readonly lan?: LanOptions | undefined;
  /** Its bounds, defaults filled in. Undefined: it has no policy. */
  readonly limits?: Limits | undefined;
  /** While it runs with a tap: the interface on the host, and both addresses. */
  readonly tap?: string | undefined;
  readonly guestAddress?: string | undefined;
  readonly gatewayAddress?: string | undefined;
  /** The same in IPv6, where it has any. */
  readonly ipv6?: VmAddresses6 | undefined;
  /** Ports of the host that lead to it: `127.0.0.1:8080 -> 80`. */
  readonly published?: readonly string[] | undefined;
  /** Of the VM, since it started. */
  readonly sent?: TrafficCount | undefined;
  readonly received?: TrafficCount | undefined;
  readonly denied?: TrafficCount | undefined;
  readonly rules?: readonly NetworkRuleInfo[] | undefined;
}

/** Which records. */
export interface RecordsOptions {
  /** Only what was denied. Default false. */
  readonly denied?: boolean | undefined;
  /** Waits for more until `signal` aborts, whose reason is thrown then. Default false. */
  readonly follow?: boolean | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** A VM's network. Policies are for VMs with the network `nat-filtered`. */
export interface NetworkApi {
  /** @throws NetworkRulesError the rules cannot be read */
  info(): Promise<NetworkInfo>;
  /**
   * Gives it another policy at one instant. Connections that it still allows live on, all others are cut.
   * @returns what it may reach now
   * @throws ConfigError; StateError the VM has no policy; NetworkRulesError: the old one holds then
   */
  set(egress: EgressRequest, o?: WaitOptions): Promise<EgressOptions>;
  /** Adds to what is allowed; all that was open stays open. @throws as {@link NetworkApi.set} */
  allow(more: EgressRequest, o?: WaitOptions): Promise<EgressOptions>;
  /**
   * Adds `denyDomains` and `denyCidrs`; `public: false` shuts the public addresses.
   * @throws as {@link NetworkApi.set}
   */
  deny(more: EgressRequest, o?: WaitOptions): Promise<EgressOptions>;
  /**
   * Changes its bounds, and nothing else; those that are not given stay as they are. No connection is cut; those that
   * are open count towards no new bound on their number. @throws as {@link NetworkApi.set}
   */
  limit(limits: LimitOptions, o?: WaitOptions): Promise<EgressOptions>;
  /**
   * What it did, oldest first: connections, denials, questions to the resolver. Some 8 MiB of it are kept;
   * floods are rate-limited, all of it is counted.
   */
  records(o?: RecordsOptions): AsyncIterable<TrafficRecord>;
  /**
   * Its packets from now on, as they pass its tap, in pcap: all that its guest sends, what the rules drop too, and what
   * reaches it. Resolves once none is missed any more. It ends when it is disposed of, with `signal`, at its bounds, and
   * with the tap (stop, suspend, kill, removal), or with `follow` with the VM alone; a pause, a restored snapshot and a changed policy do not end it.
   * tcpdump does it (a process that dies with this one).
   * @throws StateError the VM has no tap, or does not run; ConfigError, also where the file is there already; HostError
   *   ERR_HOST_TOOL, ERR_HOST_PERMISSION (CAP_NET_RAW is needed), ERR_HOST_DISK_FULL; NetworkSetupError; TimeoutError;
   *   the signal's reason
   */
  capture(o: CaptureOptions & Pick<WaitOptions, 'signal'>): Promise<NetworkCapture>;
}
