/** The VMs of a pool: made ahead of demand, looked after, made as new, thrown away. */
import { VmDiedError } from '../errors.ts';
import { events, type PoolRemovalReason } from '../events.ts';
import { pinnedMemoryBytes } from '../host-memory.ts';
import type { Vm } from '../vm/index.ts';
import { Demand } from './demand.ts';
import { checkHealth } from './health.ts';
import type { PoolConfig } from './options.ts';
import { Refill } from './refill.ts';
import { Member, Roster } from './roster.ts';
import type { PoolCounters } from './stats.ts';
import type { VmSource } from './types.ts';

/** How often a pool looks after itself, where none of its own times is shorter. */
const TICK_MS = 1_000;
/** VMs that were made together do not expire together: by so much of `maxAgeMs` they differ. */
const AGE_SPREAD = 0.1;
/** A VM's successor is made ahead of its expiry, but not before so much of its life is left. */
const MAX_LEAD_OF_AGE = 0.25;

/** Whom a stock serves. */
export interface StockOptions {
  readonly config: PoolConfig;
  readonly source: VmSource;
  readonly counters: PoolCounters;
  /** Callers who wait for a VM. */
  readonly waiting: () => number;
  /** A VM is ready: lends it to whoever waits. @returns false where nobody does */
  readonly onReady: (member: Member) => boolean;
  /** The VMs have changed; or none could be made. */
  readonly onChange: (error?: unknown) => void;
}

/** Owns the VMs of one pool. */
export class Stock {
  readonly roster = new Roster();
  /** Told of every VM that is asked for, and of callers who gave up. */
  readonly demand: Demand;
  readonly #o: StockOptions;
  readonly #refill: Refill;
  /** Ends what is being made, reset and pinged. */
  readonly #over = new AbortController();
  /** What goes on behind the callers' backs. */
  readonly #tasks = new Set<Promise<void>>();
  /** `draining`: only those who wait already get VMs. */
  #state: 'open' | 'draining' | 'closed' = 'open';
  #planned: NodeJS.Immediate | undefined;
  #tick: NodeJS.Timeout | undefined;
  #checkedAt = performance.now();
  #isChecking = false;

  constructor(o: StockOptions) {
    this.#o = o;
    this.demand = new Demand(o.config.idleTimeoutMs);
    const pool = o.config.name;
    this.#refill = new Refill(o.source, this.#over.signal, {
      made: (vm, durationMs) => this.#onMade(vm, durationMs),
      failed: (error, { failures, retryMs }) => {
        o.counters.sourceFailed();
        events.emit('pool.source-failed', { pool, failures, retryMs, error: textOf(error) });
        o.onChange(error);
      },
      recovered: (failures) => events.emit('pool.source-recovered', { pool, failures }),
      retry: () => this.#plan(),
    });
  }

  /** VMs on their way up. */
  get making(): number {
    return this.#refill.making;
  }

  /** Why no VM can be made; undefined while they can. */
  get lastError(): unknown {
    return this.#refill.lastError;
  }

  /** Begins to make VMs. */
  begin(): void {
    const { idleTimeoutMs, healthIntervalMs } = this.#o.config;
    const tickMs = Math.min(TICK_MS, idleTimeoutMs, healthIntervalMs);
    this.#tick = setInterval(() => this.#onTick(), tickMs).unref();
    this.#plan();
  }

  /** A VM that is ready; undefined where there is none. Waits for nothing. */
  take(now: number): Member | undefined {
    for (;;) {
      const member = this.roster.take();
      if (member === undefined || member.isFit(now)) return member;
      void this.#retire(member, whyUnfit(member, now));
    }
  }

  /**
   * A used VM comes back; what becomes of it goes on behind the caller's back.
   * @param isClean whether a reset in place undoes what its user did
   */
  takeBack(member: Member, isClean: boolean): void {
    this.planSoon();
    if (member.state !== 'leased') return; // it died, or the pool was closed
    const now = performance.now();
    const { reset } = this.#o.source;
    if (reset === undefined) void this.#retire(member, 'used');
    else if (!isClean) void this.#retire(member, 'unclean');
    else if (!member.isFit(now)) void this.#retire(member, whyUnfit(member, now));
    else if (this.#state === 'draining' && this.#o.waiting() === 0)
      void this.#retire(member, 'surplus');
    else this.#track(this.#reset(member, reset));
  }

  /** A used VM is to be thrown away. Resolves once it is gone. */
  async destroy(member: Member): Promise<void> {
    if (member.state === 'leased') await this.#retire(member, 'destroyed');
  }

  /** Only those who wait already get VMs from here on. */
  drain(): void {
    this.#state = 'draining';
    this.#plan();
  }

  /** Plans anew, but not on the caller's path: a plan starts processes. */
  planSoon(): void {
    if (this.#state === 'closed') return;
    this.#planned ??= setImmediate(() => {
      this.#planned = undefined;
      this.#plan();
    });
  }

  /** Ends all that goes on and throws all VMs away, leased ones too. Never rejects. */
  async close(why: Error): Promise<void> {
    this.#state = 'closed';
    clearInterval(this.#tick);
    clearImmediate(this.#planned);
    this.#over.abort(why);
    for (const member of this.roster.all) {
      if (member.state !== 'leaving') void this.#retire(member, 'closed');
    }
    await this.#refill.settled();
    while (this.#tasks.size > 0) await Promise.all(this.#tasks);
  }

  /** Host memory that its VMs use now. */
  async usedBytes(): Promise<number> {
    const { source, config } = this.#o;
    const most = config.countedBytes ?? source.bytesPerVm;
    const each = this.roster.all.map(async ({ vm }) => {
      const { pid } = await vm.info();
      return pid === undefined ? 0 : Math.min(most, await pinnedMemoryBytes(pid));
    });
    return (await Promise.all(each)).reduce((sum, bytes) => sum + bytes, 0);
  }

  /** Makes what is missing, and takes away what has been superfluous for long enough. */
  #plan(): void {
    if (this.#state === 'closed') return;
    const now = performance.now();
    const { roster } = this;
    const { maxSize, idleTimeoutMs, maxAgeMs } = this.#o.config;
    const { leadMs } = this.#refill;
    const wanted = this.#wanted(now, leadMs);
    for (const member of [...roster.idle]) {
      if (!member.isFit(now)) void this.#retire(member, whyUnfit(member, now));
    }
    const present = () => roster.size - roster.count('leaving');
    const restMs = this.#state === 'open' ? idleTimeoutMs : 0;
    // Those that would have to be replaced next go first.
    for (const member of roster.idle.toSorted((a, b) => a.expiresAt - b.expiresAt)) {
      if (present() > wanted && now - member.idleSince >= restMs)
        void this.#retire(member, 'surplus');
    }
    const leaveSoon = Math.min(2 * leadMs + TICK_MS, maxAgeMs * MAX_LEAD_OF_AGE);
    const expiring = roster.idle.filter(({ expiresAt }) => expiresAt - now < leaveSoon).length;
    const missing = wanted - (present() + this.making - expiring);
    this.#refill.begin(Math.min(missing, maxSize - roster.size - this.making));
    this.#o.onChange();
  }

  /** VMs that there should be. */
  #wanted(now: number, leadMs: number): number {
    const { minSize, maxSize } = this.#o.config;
    const inUse = this.roster.count('leased') + this.#o.waiting();
    if (this.#state !== 'open') return Math.min(maxSize, inUse);
    // Whoever has one may soon want another.
    const spares = Math.max(this.demand.spares(now, leadMs), inUse > 0 ? 1 : 0);
    return Math.min(maxSize, Math.max(minSize, inUse + spares));
  }

  #onTick(): void {
    this.#plan();
    const now = performance.now();
    if (this.#isChecking || now - this.#checkedAt < this.#o.config.healthIntervalMs) return;
    this.#isChecking = true;
    this.#checkedAt = now;
    const onSick = (member: Member, error: unknown) => {
      void this.#retire(member, 'unhealthy', error);
      this.planSoon();
    };
    const checked = checkHealth([...this.roster.idle], onSick, this.#over.signal);
    this.#track(checked.finally(() => (this.#isChecking = false)));
  }

  #onMade(vm: Vm, durationMs: number): void {
    const now = performance.now();
    const ageMs = this.#o.config.maxAgeMs * (1 - Math.random() * AGE_SPREAD);
    const member = new Member(vm, now + ageMs);
    this.roster.add(member);
    this.#o.counters.made();
    this.#watch(member);
    this.#offer(member, 'made', durationMs);
  }

  /** A VM that dies is noticed at once. */
  #watch(member: Member): void {
    const { fault } = member.vm;
    const onFault = () => {
      member.isPoisoned = true;
      if (member.state === 'leaving') return;
      // Its user may yet have use for one that waits for space on the host's disk; not for a dead one.
      if (member.state === 'leased' && !(fault.reason instanceof VmDiedError)) return;
      void this.#retire(member, 'died', fault.reason);
    };
    fault.addEventListener('abort', onFault, { once: true, signal: member.unwatched.signal });
  }

  /** A VM is as new: to whoever has waited longest, else to those who are ready. */
  #offer(member: Member, by: 'made' | 'reset', durationMs: number): void {
    const now = performance.now();
    if (this.#state === 'closed') return void this.#retire(member, 'closed');
    if (!member.isFit(now)) return void this.#retire(member, whyUnfit(member, now));
    const pool = this.#o.config.name;
    events.emit('pool.vm-ready', { pool, vmId: member.vm.id, by, durationMs });
    if (!this.#o.onReady(member)) this.roster.park(member, now);
    this.planSoon();
    this.#o.onChange();
  }

  async #reset(member: Member, reset: NonNullable<VmSource['reset']>): Promise<void> {
    member.state = 'resetting';
    const startedAt = performance.now();
    const failure = await reset(member.vm, this.#over.signal).then(
      () => undefined,
      (error: unknown) => ({ error }),
    );
    if (hasLeft(member)) return;
    if (failure !== undefined) return void this.#retire(member, 'reset-failed', failure.error);
    const now = performance.now();
    this.#o.counters.reset();
    this.demand.back(now);
    this.#offer(member, 'reset', now - startedAt);
  }

  /** Throws a VM away. Never rejects: `vm.close()` goes on past errors, and announces what is left. */
  #retire(member: Member, reason: PoolRemovalReason, error?: unknown): Promise<void> {
    this.roster.leave(member);
    member.unwatched.abort();
    this.#o.counters.removed(reason);
    events.emit('pool.vm-removed', {
      pool: this.#o.config.name,
      vmId: member.vm.id,
      reason,
      error: error === undefined ? undefined : textOf(error),
    });
    const gone = member.vm.close().finally(() => {
      this.roster.remove(member);
      this.planSoon();
    });
    this.#track(gone);
    return gone;
  }

  #track(task: Promise<void>): void {
    const done: Promise<void> = task.catch(() => undefined).finally(() => this.#tasks.delete(done));
    this.#tasks.add(done);
  }
}

/** Why a VM cannot be lent. */
function whyUnfit(member: Member, now: number): PoolRemovalReason {
  if (member.isPoisoned || member.vm.fault.aborted) return 'died';
  return now >= member.expiresAt ? 'expired' : 'unclean';
}

/** Of a member whose state may have changed while something was awaited. */
function hasLeft(member: Member): boolean {
  return member.state === 'leaving';
}

/** What an error says. */
export function textOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
