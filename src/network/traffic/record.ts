/** What becomes of a VM's packets and questions, as lines of JSON that people and programs read. */
import {
  DENIAL_CAUSES,
  type EgressRule,
  firstMeeting,
  readLogPrefix,
  readMark,
  UNROUTABLE_RANGES6,
  versionOf,
} from '../../../nft/index.ts';
import { placeText } from '../ipv6-text.ts';
import type { NetworkEntry } from '../entry.ts';
import type { IpPacket, LoggedPacket } from './nflog.ts';

/** A line of a VM's network log. */
export type TrafficRecord = ConnectionRecord | DnsRecord;

/** A new connection, or a packet that was denied. */
export interface ConnectionRecord {
  /** ISO 8601, host clock. */
  readonly time: string;
  readonly kind: 'connection' | 'denied';
  /** `tcp`, `udp`, `icmp`, `icmpv6`, a number; `other`: no IP. */
  readonly protocol: string;
  readonly from?: string | undefined;
  readonly fromPort?: number | undefined;
  readonly to?: string | undefined;
  readonly toPort?: number | undefined;
  /** By which the VM found the address, where the resolver told it. */
  readonly name?: string | undefined;
  /** Title of the rule that decided. */
  readonly rule?: string | undefined;
  /** Of a denial: a word that stays the same, and what it means. */
  readonly cause?: string | undefined;
  readonly reason?: string | undefined;
  /** Of a denial: what would allow it, where anything does. */
  readonly remedy?: string | undefined;
}

/** A question that the VM asked the resolver. */
export interface DnsRecord {
  readonly time: string;
  readonly kind: 'dns';
  readonly name: string;
  readonly recordType: string;
  readonly verdict: string;
  readonly rule?: string | undefined;
  readonly addresses?: readonly string[] | undefined;
  readonly error?: string | undefined;
  readonly rcode?: string | undefined;
  readonly durationMs: number;
  /** How many such records were left out before this one. */
  readonly lost: number;
  readonly remedy?: string | undefined;
}

/**
 * The record of a packet that our rules logged. Pure.
 * @param nameOf by which name the VM knows an address
 * @returns undefined where it is none of our rules'
 */
export function recordOf(
  logged: LoggedPacket,
  entry: NetworkEntry,
  nameOf: (address: string) => string | undefined,
): ConnectionRecord | undefined {
  const said = readLogPrefix(logged.prefix);
  if (said === undefined) return undefined;
  const { packet } = logged;
  const meaning = readMark(logged.mark);
  const ruleId = meaning?.kind === 'rule' ? meaning.ruleId : undefined;
  const rule = entry.network.policy.rules.find(({ id }) => id === ruleId);
  const name = packet === undefined ? undefined : nameOf(packet.to);
  const base = {
    time: new Date(logged.timeMs).toISOString(),
    protocol: packet?.protocol ?? 'other',
    from: packet?.from,
    fromPort: packet?.fromPort,
    to: packet?.to,
    toPort: packet?.toPort,
    name,
    rule: rule?.title,
  };
  if (said.verdict === 'allow') return { kind: 'connection', ...base };
  return {
    kind: 'denied',
    ...base,
    cause: said.cause,
    reason: DENIAL_CAUSES[said.cause].text,
    remedy: remedyOf(said.cause, { ...packet, name, rule, isPublic: opensPublic(entry) }),
  };
}

/** Then only the port was wrong. */
function opensPublic({ network }: NetworkEntry): boolean {
  return network.policy.rules.some(({ destination }) => destination.kind === 'public');
}

/** The flag that would allow it; undefined where none does. Pure. */
function remedyOf(
  cause: string,
  o: Partial<Pick<IpPacket, 'protocol' | 'to' | 'toPort'>> & {
    name: string | undefined;
    rule: EgressRule | undefined;
    isPublic: boolean;
  },
): string | undefined {
  const { protocol = '', to = '', toPort, name, rule } = o;
  const byAddress = protocol === 'tcp' ? `--allow-cidr ${placeText(to, toPort)}` : undefined;
  switch (cause) {
    case 'policy':
      if (toPort === undefined) return undefined;
      if (o.isPublic) return `--allow-port ${toPort}${protocol === 'tcp' ? '' : `/${protocol}`}`;
      if (protocol !== 'tcp') return `--allow-cidr ${to} --allow-port ${toPort}/${protocol}`;
      return name === undefined
        ? `--allow-cidr ${placeText(to, toPort)}`
        : `--allow-domain ${name}:${toPort}`;
    case 'reserved':
      return byAddress;
    case 'ipv6':
      return isRoutable6(to) ? '--ipv6' : undefined;
    case 'rule':
      return rule?.destination.kind === 'host-networks'
        ? byAddress
        : 'leave out the --deny-cidr that denies it';
    case 'isolated':
      return '--network nat-filtered';
    default:
      return undefined;
  }
}

/** Whether IPv6 would lead there, if the VM had it. */
function isRoutable6(address: string): boolean {
  return versionOf(address) === 6 && firstMeeting(address, UNROUTABLE_RANGES6) === undefined;
}
