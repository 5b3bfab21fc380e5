/** What one VM's rules are made of. Validated by `checkVm`; built by `addVm` and its kin. */

/** `nat-filtered`: out by the rules, behind the host's address. `isolated`: nothing out, not even DNS. */
export type NetworkMode = 'nat-filtered' | 'isolated';

/** One port, or all from the first to the last. */
export type PortRange = number | readonly [first: number, last: number];

/** Where a rule lets packets go. */
export type EgressDestination =
  /** Every address that is not reserved. */
  | { readonly kind: 'public' }
  /**
   * Addresses and CIDRs of IPv4 and IPv6. Reserved ones among them need `exceptions` too. Those of IPv6 say nothing
   * for a VM without it.
   */
  | { readonly kind: 'addresses'; readonly cidrs: readonly string[] }
  /**
   * The host's own networks of IPv6, as `setHostNetworks` named them last. A rule that denies them comes before those for
   * `public`: connections that one of these has let in are asked about again, and cut, when a network becomes the host's.
   */
  | { readonly kind: 'host-networks' }
  /**
   * What `allowAddress` put there last: the addresses of names, as long as the resolver's answer lives. `of` says
   * which names: a rule of others is another rule, and inherits no address.
   */
  | { readonly kind: 'dynamic'; readonly of: string };

/** One rule of a policy. The first that fits decides; where none fits, the packet is denied. */
export interface EgressRule {
  /**
   * 1–4095, unique in the policy and never given to another rule as long as the VM's generation is the same:
   * connections are known by it. Published ports take theirs from the same numbers.
   */
  readonly id: number;
  /** What the user knows the rule by, e.g. `--allow-domain example.org`. At most 100 bytes. */
  readonly title: string;
  readonly action: 'allow' | 'deny';
  /** `icmp` is the echo request, and the errors that belong to it. */
  readonly protocol: 'tcp' | 'udp' | 'icmp';
  /** Empty: all ports. Always empty for ICMP. */
  readonly ports: readonly PortRange[];
  readonly destination: EgressDestination;
}

/** A port of the guest that may be connected to from outside, where the host redirects to it (DNAT). */
export interface PublishedPort {
  /** As of {@link EgressRule.id}. */
  readonly id: number;
  readonly protocol: 'tcp' | 'udp';
  /** The guest's. */
  readonly port: number;
}

/** Bounds of one VM. What is undefined is unbounded. */
export interface NetworkLimits {
  readonly newConnectionsPerSecond?: number | undefined;
  /** How many new connections at once. Default: twice the rate. */
  readonly newConnectionsBurst?: number | undefined;
  /** At a time; TCP ones count until the kernel forgets them, up to 120 s after their end. */
  readonly connections?: number | undefined;
  /** From the VM. */
  readonly uploadBytesPerSecond?: number | undefined;
  /** To the VM. */
  readonly downloadBytesPerSecond?: number | undefined;
  /** By UDP; those by TCP are the resolver's to count. */
  readonly dnsQueriesPerSecond?: number | undefined;
}

/** What a VM may do. */
export interface NetworkPolicy {
  readonly mode: NetworkMode;
  /** In order. Empty where isolated. */
  readonly rules: readonly EgressRule[];
  /** Reserved ranges of either family (RFC 1918, unique local, …) that rules with `addresses` may name. */
  readonly exceptions: readonly string[];
  readonly published: readonly PublishedPort[];
  /** `reject` answers what is denied (TCP reset, ICMP administratively prohibited); `drop` is silent. */
  readonly denial: 'reject' | 'drop';
  readonly limits: NetworkLimits;
}

/** IPv6 addresses of both ends of a tap. There is no neighbour discovery: both ends know each other's MAC address. */
export interface VmAddresses6 {
  /** The guest's. It speaks as this address and no other, a link-local one neither. */
  readonly guestAddress: string;
  /** The host's end of the tap; it answers ping there and nothing else. */
  readonly gatewayAddress: string;
}

/** One VM on the network. */
export interface VmNetwork {
  /** Name of its interface on the host: a letter, then up to 14 of letters, digits, `_` and `-`. */
  readonly tap: string;
  /** The guest's. */
  readonly mac: string;
  /** The guest's IPv4 address. */
  readonly guestAddress: string;
  /** The host's end of the tap; the resolver answers there, port 53. */
  readonly gatewayAddress: string;
  /** Its IPv6 addresses. Undefined: it has none, and whatever it sends of IPv6 is denied (cause `ipv6`). */
  readonly v6?: VmAddresses6 | undefined;
  /**
   * 0–4094. Another one for each VM that follows on the same tap or address, and after a reset: connections
   * of another generation are nobody's, so that none is inherited.
   */
  readonly generation: number;
  readonly policy: NetworkPolicy;
  /** Its tap is lent: what it does is logged to a group of its own. Default: it is not. */
  readonly isLent?: true | undefined;
}

/**
 * Addresses that no rule opens unless `exceptions` names them: "this network", RFC 1918, carrier-grade NAT,
 * loopback, link-local (metadata services), protocol assignments, 6to4 relays, benchmarking, multicast and reserved
 * (IANA IPv4 special-purpose address registry, RFC 6890).
 */
export const RESERVED_RANGES: readonly string[] = [
  '0.0.0.0/8',
  '10.0.0.0/8',
  '100.64.0.0/10',
  '127.0.0.0/8',
  '169.254.0.0/16',
  '172.16.0.0/12',
  '192.0.0.0/24',
  '192.88.99.0/24',
  '192.168.0.0/16',
  '198.18.0.0/15',
  '224.0.0.0/3',
];

/** Never leave a tap, whatever the policy: they cannot be exceptions. */
export const UNROUTABLE_RANGES: readonly string[] = ['0.0.0.0/8', '127.0.0.0/8', '224.0.0.0/3'];

/**
 * The same of IPv6: all that is not 2000::/3, which is all that has been given out for the Internet, and what is
 * special within it: protocol assignments with Teredo and ORCHID, documentation, and 6to4 (IANA IPv6 special-purpose
 * address registry, RFC 6890; RFC 9637). So unspecified, loopback, IPv4-mapped and -compatible, NAT64, discard-only,
 * segment routing, unique local, link-local, site-local and multicast addresses are among them.
 */
export const RESERVED_RANGES6: readonly string[] = [
  '::/3',
  '2001::/23',
  '2001:db8::/32',
  '2002::/16',
  '3fff::/20',
  '4000::/2',
  '8000::/1',
];

/**
 * Of IPv6, never leave a tap: unspecified, loopback and IPv4-compatible; IPv4-mapped, by which a socket may mean an
 * IPv4 address; link-local; multicast.
 */
export const UNROUTABLE_RANGES6: readonly string[] = [
  '::/96',
  '::ffff:0:0/96',
  'fe80::/10',
  'ff00::/8',
];

/** Where nothing else is said. VMs with these share their rules for them, which makes adding one cheap. */
export const DEFAULT_LIMITS = {
  newConnectionsPerSecond: 200,
  newConnectionsBurst: 400,
  connections: 1000,
  dnsQueriesPerSecond: 200,
} as const satisfies NetworkLimits;

/** What an agent needs and nothing more: web, ssh and git to public addresses. */
export const DEFAULT_RULES: readonly EgressRule[] = [
  {
    id: 1,
    title: 'default: web',
    action: 'allow',
    protocol: 'tcp',
    ports: [80, 443],
    destination: { kind: 'public' },
  },
  {
    id: 2,
    title: 'default: ssh and git',
    action: 'allow',
    protocol: 'tcp',
    ports: [22, 9418],
    destination: { kind: 'public' },
  },
];

/** The default policy. */
export const DEFAULT_POLICY: NetworkPolicy = {
  mode: 'nat-filtered',
  rules: DEFAULT_RULES,
  exceptions: [],
  published: [],
  denial: 'reject',
  limits: DEFAULT_LIMITS,
};

/** No way out. */
export const ISOLATED_POLICY: NetworkPolicy = {
  ...DEFAULT_POLICY,
  mode: 'isolated',
  rules: [],
  limits: {},
};
