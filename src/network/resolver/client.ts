/** One VM's service: from a packet of its guest to the reply. No sockets. */
import { setTimeout as delay } from 'node:timers/promises';
import type { EventStream } from '../../events.ts';
import type { NamedRange } from './addresses.ts';
import { dataBytes, sift } from './answer.ts';
import { QueryLimits, TokenBucket } from './limits.ts';
import { empty, failed, limited, rebinding, type Outcome } from './outcome.ts';
import { encodeNoQuery, encodeReply, UDP_BYTES, type UpstreamReply } from './packet.ts';
import type { PendingGate } from './pending.ts';
import {
  compilePolicy,
  forbiddenRange,
  isMadeUp,
  judge,
  judgeName,
  type CompiledPolicy,
} from './policy.ts';
import { parseQuery, rcodeName, type Query } from './query.ts';
import { isAddressType } from './record-types.ts';
import type { AddressHook, ResolverClient, ResolverPolicy, ResolverStats } from './types.ts';
import { UpstreamFailure, type Upstream } from './upstream.ts';

const MAX_TCP_REPLY_BYTES = 65_535;
/** How long the hook may take before the guest gets SERVFAIL. */
const HOOK_TIMEOUT_MS = 2_000;
/** `dns.query` events of one client; more are left out and counted. */
const EVENTS_PER_SECOND = 50;
const EVENT_BURST = 200;

/** What all clients share. */
export interface ClientContext {
  readonly upstream: Upstream;
  readonly events: EventStream;
  readonly onAddresses: AddressHook;
  readonly graceSeconds: number;
  readonly maxTtlSeconds: number;
  readonly never: readonly NamedRange[];
  readonly gate: PendingGate;
  readonly now: () => number;
}

type Counter = Exclude<keyof ResolverStats, 'pending' | 'tcpConnections'>;

/** One VM's service. */
export class Client {
  #spec: ResolverClient;
  readonly #context: ClientContext;
  readonly #events: TokenBucket;
  readonly #counters: Record<Counter, number>;
  readonly #closing = new AbortController();
  #policy: CompiledPolicy;
  #limits: QueryLimits;
  #pending = 0;
  /** Events left out since the last one that was not. */
  #lost = 0;

  /** @throws ConfigError for a policy that cannot be used */
  constructor(spec: ResolverClient, context: ClientContext) {
    this.#spec = spec;
    this.#context = context;
    this.#policy = compilePolicy(spec.policy, spec);
    this.#limits = new QueryLimits(this.#policy.limits, context.now);
    this.#events = new TokenBucket(EVENTS_PER_SECOND, EVENT_BURST, context.now);
    this.#counters = {
      ...{ answered: 0, refused: 0, limited: 0, rebinding: 0, failed: 0 },
      ...{ queries: 0, malformed: 0, wrongSource: 0, dropped: 0, eventsLost: 0 },
    };
  }

  /** Holds for queries that are under way, too. What was used of the limits is forgotten. */
  change(policy: ResolverPolicy | undefined): void {
    this.#policy = compilePolicy(policy, this.#spec);
    this.#spec = { ...this.#spec, policy };
    this.#limits = new QueryLimits(this.#policy.limits, this.#context.now);
  }

  /** As it was given, with the policy that holds now. */
  get spec(): ResolverClient {
    return this.#spec;
  }

  /** Most TCP connections at once. */
  get maxConnections(): number {
    return this.#policy.limits.tcpConnections;
  }

  get stats(): Omit<ResolverStats, 'tcpConnections'> {
    return { ...this.#counters, pending: this.#pending };
  }

  count(counter: 'wrongSource' | 'dropped'): void {
    this.#counters[counter] += 1;
  }

  /** No reply leaves from now on, and no hook is called. */
  close(): void {
    this.#closing.abort();
  }

  /** The reply to a packet; undefined where there is to be none. Never rejects. */
  async answer(packet: Buffer, transport: 'udp' | 'tcp'): Promise<Buffer | undefined> {
    const startedAt = performance.now();
    this.#counters.queries += 1;
    const admission = this.#limits.admit();
    if (admission === 'drop') {
      this.#counters.dropped += 1;
      return undefined;
    }
    const query = parseQuery(packet);
    if (!('name' in query)) {
      this.#counters.malformed += 1;
      return query.rcode === undefined || this.#policy.isSilent
        ? undefined
        : encodeNoQuery(query.id, query.rcode);
    }
    const decided =
      admission === 'refuse' ? limited('queriesPerSecond') : await this.#decide(query);
    if (this.#closing.signal.aborted) return undefined;
    const { outcome, bytes } = encodeOutcome(query, decided, transport);
    this.#announce(query, outcome, performance.now() - startedAt);
    const isDenial = outcome.verdict !== 'answered' && outcome.verdict !== 'failed';
    return isDenial && this.#policy.isSilent ? undefined : bytes;
  }

  async #decide(query: Query): Promise<Outcome> {
    const policy = this.#policy;
    const decision = judge(query, policy, this.#limits, this.#context.never);
    if (decision.verdict !== 'forward') return decision;
    if (this.#pending >= policy.limits.pendingQueries) return limited('pendingQueries');
    if (!this.#context.gate.enter(this.#pending)) return limited('allPendingQueries');
    this.#pending += 1;
    try {
      return await this.#forward(query, decision.rule);
    } catch (error) {
      const message = error instanceof Error ? error.message : String(error);
      return failed(decision.rule, error instanceof UpstreamFailure ? 'upstream' : 'here', message);
    } finally {
      this.#pending -= 1;
      this.#context.gate.leave();
    }
  }

  async #forward(query: Query, allowedBy: string): Promise<Outcome> {
    const reply = await this.#context.upstream.resolve(query);
    this.#closing.signal.throwIfAborted();
    // The policy may have changed meanwhile: what it forbids now is not opened any more.
    const now = judgeName(query.name, this.#policy, this.#context.never);
    if (now.verdict !== 'forward') return now;
    return this.#hand(query, reply, allowedBy);
  }

  /** Checks what upstream said, and has its addresses opened. */
  async #hand(query: Query, reply: UpstreamReply, rule: string): Promise<Outcome> {
    const { graceSeconds, maxTtlSeconds, never } = this.#context;
    const answer = sift(reply, query, { maxTtlSeconds });
    if (answer === undefined) return failed(rule, 'upstream', 'the answer is not sound');
    const { answers, authorities, addresses, ttlSeconds } = answer;
    // A VM has IPv4. A refusal of its IPv6 addresses would be one of the name to some (musl).
    if (addresses.length > 0 && addresses.every((one) => isMadeUp(one, this.#policy, never)))
      return empty(rule);
    for (const address of addresses) {
      const range = forbiddenRange(address, this.#policy, never);
      if (range !== undefined) return rebinding(range.cidr, addresses);
    }
    if (!isAddressType(query.type) && dataBytes(answers) > this.#policy.limits.otherAnswerBytes) {
      return limited('otherAnswerBytes');
    }
    if (addresses.length > 0) {
      await this.#open({ name: query.name, addresses, ttlSeconds: ttlSeconds + graceSeconds });
    }
    const replyToGuest = { rcode: reply.rcode, answers, authorities };
    const told = addresses.length > 0 ? { addresses } : {};
    return { verdict: 'answered', rule, ...told, reply: replyToGuest };
  }

  async #open(answer: Parameters<AddressHook>[1]): Promise<void> {
    const over = new AbortController();
    const signal = AbortSignal.any([this.#closing.signal, over.signal]);
    const tooLate = delay(HOOK_TIMEOUT_MS, undefined, { signal }).then(() => {
      throw new Error(`the addresses were not opened within ${HOOK_TIMEOUT_MS} ms`);
    });
    try {
      await Promise.race([this.#context.onAddresses(this.spec, answer, signal), tooLate]);
    } finally {
      over.abort();
      tooLate.catch(() => undefined);
    }
  }

  #announce(query: Query, outcome: Outcome, durationMs: number): void {
    this.#counters[outcome.verdict] += 1;
    if (!this.#events.take()) {
      this.#counters.eventsLost += 1;
      this.#lost += 1;
      return;
    }
    this.#context.events.emit('dns.query', {
      vmId: this.spec.id,
      name: query.name,
      recordType: query.typeName,
      verdict: outcome.verdict,
      rcode: rcodeName(outcome.reply.rcode),
      rule: outcome.rule,
      addresses: outcome.addresses,
      error: outcome.error,
      durationMs: Math.round(durationMs * 10) / 10,
      lost: this.#lost,
    });
    this.#lost = 0;
  }
}

/** The reply's bytes; where a record of upstream's cannot be written, those of a failure. */
function encodeOutcome(
  query: Query,
  outcome: Outcome,
  transport: 'udp' | 'tcp',
): { outcome: Outcome; bytes: Buffer } {
  const maxBytes =
    transport === 'tcp' ? MAX_TCP_REPLY_BYTES : Math.min(query.maxUdpBytes, UDP_BYTES);
  try {
    return { outcome, bytes: encodeReply(query, outcome.reply, maxBytes) };
  } catch (error) {
    const failure = failed(outcome.rule, 'upstream', `the answer is not sound: ${String(error)}`);
    return { outcome: failure, bytes: encodeReply(query, failure.reply, maxBytes) };
  }
}
