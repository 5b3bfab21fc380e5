/**
 * Marks: how the kernel remembers by which rule a connection was let through, and how a log line or a counter
 * says why a packet was not.
 *
 * ```
 *  31      24 23        12 11         0
 * ┌──────────┬────────────┬────────────┐
 * │   0x71   │ generation │  rule id   │   connection mark (ct mark); packet mark in logs
 * │   0x71   │   0xfff    │   cause    │   packet mark of what is denied for a cause of ours
 * │   0x71   │     0      │     0      │   packet mark of what the guard on the tap let through, and table `inet` has seen
 * │   0x00   │   0x710    │     0      │   packet mark of what the guard let through, until then
 * └──────────┴────────────┴────────────┘
 * ```
 *
 * The first byte keeps our marks apart from those of others, who like small numbers.
 */

/** First byte of all marks of ours. Also the mark of a packet that passed the guard, and then came to table `inet`. */
export const MARK_BASE = 0x71000000;
/**
 * Mark of a packet that passed the guard. It is none of ours until table `inet` makes it one: so what has met only
 * one of the two tables, as the other is gone, has no mark of ours.
 */
export const GUARD_MARK = 0x00710000;
/** Which bits of a mark say whose it is. */
export const MARK_MASK = 0xff000000;
/** Which bits say whose it is, and of which generation. */
export const GENERATION_MASK = 0xfffff000;
/** Largest rule id. */
export const MAX_RULE_ID = 0xfff;
/** Largest generation; the one above marks causes. */
export const MAX_GENERATION = 0xffe;

const CAUSE_GENERATION = 0xfff;

interface CauseFacts {
  readonly number: number;
  /** For people, as the end of "denied: …". */
  readonly text: string;
}

/** Why a packet is denied where no rule of the policy says so. The first word goes into the log. */
export const DENIAL_CAUSES = {
  policy: { number: 1, text: 'no rule allows it' },
  reserved: { number: 2, text: 'private, link-local or otherwise reserved address' },
  isolated: { number: 3, text: 'the VM is isolated' },
  vm: { number: 4, text: 'address of another VM' },
  host: { number: 5, text: 'address of the host' },
  dnat: { number: 6, text: 'redirected on the host to somewhere else' },
  ipv6: { number: 7, text: 'IPv6, which the VM has not' },
  state: { number: 8, text: 'belongs to no connection' },
  related: { number: 9, text: "ICMP error about somebody else's connection, or a redirect" },
  cut: { number: 10, text: 'the policy allows this connection no more' },
  rate: { number: 11, text: 'too many new connections per second' },
  connections: { number: 12, text: 'too many connections at a time' },
  dns: { number: 13, text: 'too many DNS queries' },
  upload: { number: 14, text: 'more bytes per second than it may send' },
  download: { number: 15, text: 'more bytes per second than it may receive' },
  inward: { number: 16, text: 'nobody may connect to this port of the VM' },
  stray: { number: 17, text: 'a tap without rules' },
  rule: { number: 18, text: 'denied by a rule' },
  spoof: { number: 32, text: "not the VM's own MAC or address" },
  arp: { number: 33, text: 'ARP other than between the VM and its gateway' },
  ethertype: { number: 34, text: 'neither IP nor ARP, or tagged (VLAN)' },
  broadcast: { number: 35, text: 'not addressed to the gateway' },
  options: { number: 36, text: 'IP options or extension headers (source routing)' },
  fragment: { number: 37, text: 'fragment' },
  ttl: { number: 38, text: 'time to live, or hop limit, of less than 2' },
  address: { number: 39, text: 'loopback, multicast, unspecified or IPv6 link-local address' },
  protocol: { number: 40, text: 'protocol other than TCP, UDP and ICMP' },
  icmpv6: { number: 41, text: 'ICMPv6 other than echo and errors: nothing is discovered here' },
} as const satisfies Record<string, CauseFacts>;

/** Key of {@link DENIAL_CAUSES}. */
export type DenialCause = keyof typeof DENIAL_CAUSES;

/** Causes in the guard on the tap (table `netdev`); all others are in table `inet`. */
export const GUARD_CAUSES = [
  ...['ipv6', 'spoof', 'arp', 'ethertype', 'broadcast', 'options', 'fragment', 'ttl'],
  ...['address', 'protocol', 'icmpv6'],
] as readonly DenialCause[];

/** Causes in table `inet`. */
export const FILTER_CAUSES = (Object.keys(DENIAL_CAUSES) as DenialCause[]).filter(
  (cause) => cause === 'ipv6' || !GUARD_CAUSES.includes(cause),
);

/** Mark of the connections that a rule lets through, and of packets that a rule denies. */
export function ruleMark(generation: number, ruleId: number): number {
  return (MARK_BASE | (generation << 12) | ruleId) >>> 0;
}

/** Packet mark of a cause. */
export function causeMark(cause: DenialCause): number {
  return ruleMark(CAUSE_GENERATION, DENIAL_CAUSES[cause].number);
}

/** What a mark of ours means. */
export type MarkMeaning =
  | { readonly kind: 'rule'; readonly generation: number; readonly ruleId: number }
  | { readonly kind: 'cause'; readonly cause: DenialCause };

const CAUSE_BY_NUMBER = new Map(
  (Object.keys(DENIAL_CAUSES) as DenialCause[]).map((c) => [DENIAL_CAUSES[c].number as number, c]),
);

/** Reads a mark, from a log or a counter; undefined where it is none of ours. */
export function readMark(mark: number): MarkMeaning | undefined {
  if ((mark & MARK_MASK) >>> 0 !== MARK_BASE) return undefined;
  const generation = (mark >>> 12) & 0xfff;
  const low = mark & 0xfff;
  if (generation !== CAUSE_GENERATION) {
    return low === 0 ? undefined : { kind: 'rule', generation, ruleId: low };
  }
  const cause = CAUSE_BY_NUMBER.get(low);
  return cause === undefined ? undefined : { kind: 'cause', cause };
}

/** Prefix of the log of a new connection that is let through; its packet mark names the rule. */
export const ALLOW_PREFIX = 'qmp-agent allow: ';

/** Prefix of the log of a denied packet. With the cause `rule` its packet mark names the rule. */
export function denyPrefix(cause: DenialCause): string {
  return `qmp-agent deny ${cause}: `;
}

/** What a log prefix of ours says; undefined where it is none of ours. */
export function readLogPrefix(
  prefix: string,
): { verdict: 'allow' } | { verdict: 'deny'; cause: DenialCause } | undefined {
  if (prefix === ALLOW_PREFIX) return { verdict: 'allow' };
  const cause = /^qmp-agent deny ([a-z0-9]+): $/.exec(prefix)?.[1];
  if (cause === undefined || !Object.hasOwn(DENIAL_CAUSES, cause)) return undefined;
  return { verdict: 'deny', cause: cause as DenialCause };
}
