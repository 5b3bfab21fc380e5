import type { EventStream } from '../../events.ts';

/** One VM as the resolver sees it. */
export interface ResolverClient {
  /** The VM's id; in every event and hook. */
  readonly id: string;
  /** IPv4 address to listen on: the VM's gateway. No two clients share one. */
  readonly listenAddress: string;
  /** The only IPv4 address that is answered: the VM's own. */
  readonly guestAddress: string;
  /** Whether it is told IPv6 addresses. Default false: it hears that names have none. */
  readonly hasIpv6?: boolean | undefined;
  /** Default: every name, default limits. */
  readonly policy?: ResolverPolicy | undefined;
}

/** What a VM may look up. */
export interface ResolverPolicy {
  /**
   * Patterns of names that may be asked for: `example.org` (exactly this name), `*.example.org` (every
   * name below it, but not itself), `*` (every name). Default `['*']`; `[]` allows none.
   */
  readonly allowDomains?: readonly string[] | undefined;
  /** Patterns that may not be asked for, whatever `allowDomains` says. Default none. */
  readonly denyDomains?: readonly string[] | undefined;
  /**
   * CIDRs (or addresses) that answers may hold although they lie in a range that is never
   * allowed (private, loopback, link-local, …). Default none.
   */
  readonly allowAddresses?: readonly string[] | undefined;
  /** How a refusal shows: `refuse` answers REFUSED at once, `drop` says nothing. Default `refuse`. */
  readonly denial?: 'refuse' | 'drop' | undefined;
  /** Bounds of use; each has a default. */
  readonly limits?: Partial<ResolverLimits> | undefined;
}

/** Bounds per VM, chosen such that package managers and git never meet them. A query past one is REFUSED. */
export interface ResolverLimits {
  /** Steady rate. Default 100. */
  readonly queriesPerSecond: number;
  /** Queries at once before the rate bites. Default 300. */
  readonly queryBurst: number;
  /** Longest name, in characters without the final dot. Default 128; the protocol's own is 253. */
  readonly nameBytes: number;
  /** Longest label. Default 52 (a SHA-256 in base32); the protocol's own is 63. */
  readonly labelBytes: number;
  /** Most labels in a name. Default 12. */
  readonly labels: number;
  /** Different names below one parent (the last two labels) that go upstream in a minute. Default 100. */
  readonly namesPerParentPerMinute: number;
  /** Different names in all that go upstream in a minute. Default 2,000. */
  readonly namesPerMinute: number;
  /** Queries for records other than addresses that go upstream in a minute. Default 300. */
  readonly otherQueriesPerMinute: number;
  /** Largest answer to such a query: the sum of its records' data. Default 2,048 bytes. */
  readonly otherAnswerBytes: number;
  /** Queries that wait for an upstream server at once. Default 64. */
  readonly pendingQueries: number;
  /** TCP connections at once. Default 16. */
  readonly tcpConnections: number;
}

/** What became of a query. */
export type QueryVerdict = 'answered' | 'refused' | 'limited' | 'rebinding' | 'failed';

/** Addresses that are about to be handed to a VM. */
export interface AddressAnswer {
  /** The name that was asked for, in lower case; addresses found through a CNAME belong to it too. */
  readonly name: string;
  /** At least one, no duplicates; those of IPv6 as RFC 5952 writes them. */
  readonly addresses: readonly string[];
  /** How long they must stay open: the TTL of the answer and {@link ResolverOptions.graceSeconds}. */
  readonly ttlSeconds: number;
}

/**
 * Called for each answer with addresses, and awaited before it leaves, so that they are open when the
 * guest connects. Where it rejects, or takes longer than 2 s (then `signal` aborts), the guest gets
 * SERVFAIL.
 */
export type AddressHook = (
  client: ResolverClient,
  answer: AddressAnswer,
  signal: AbortSignal,
) => Promise<void> | void;

/** How a resolver is to be. */
export interface ResolverOptions {
  /**
   * Upstream servers: `10.0.0.1`, `10.0.0.1:5353`, `2001:db8::1`, `[2001:db8::1]:5353`. Default: those
   * of `resolvConfPath`, which is read again when it changes.
   */
  readonly upstreams?: readonly string[] | undefined;
  /** Default `/etc/resolv.conf`. */
  readonly resolvConfPath?: string | undefined;
  /** UDP and TCP port to listen on. Default 53. */
  readonly port?: number | undefined;
  readonly onAddresses?: AddressHook | undefined;
  /**
   * What {@link AddressAnswer.ttlSeconds} has on top of the TTL: clients connect a while after they
   * asked, and some (apt) keep an address for a whole run. Default 300.
   */
  readonly graceSeconds?: number | undefined;
  /** Longest TTL that a guest sees. Default 3,600. */
  readonly maxTtlSeconds?: number | undefined;
  /** CIDRs that no answer may hold, besides the built-in ones: the host's own, the pool of the VMs. */
  readonly neverAddresses?: readonly string[] | undefined;
  /** Where `dns.query` is announced. Default: the process-wide stream. */
  readonly events?: EventStream | undefined;
  /** Queries of all VMs that wait for an upstream server. Default 1,024. */
  readonly pendingQueries?: number | undefined;
  /** A clock in milliseconds that never goes back; for tests. */
  readonly now?: (() => number) | undefined;
}

/** Counters of one client, since it was added. */
export interface ResolverStats extends Readonly<Record<QueryVerdict, number>> {
  /** Packets and frames from the guest, well-formed or not. */
  readonly queries: number;
  /** Not DNS queries, or not of the kind that is served. */
  readonly malformed: number;
  /** Came from another address than the guest's, over UDP or TCP; not answered. */
  readonly wrongSource: number;
  /** Not answered at all: far over the rate, or the guest does not read. */
  readonly dropped: number;
  /** `dns.query` events that were left out because there were too many. */
  readonly eventsLost: number;
  /** Waiting for an upstream server or the hook now. */
  readonly pending: number;
  readonly tcpConnections: number;
}
