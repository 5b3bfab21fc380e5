import { MAX_TIMEOUT_MS } from '../config/schema.ts';
import { PoolClosedError, PoolFullError, PoolTimeoutError, QmpAgentError } from '../errors.ts';
import { events } from '../events.ts';
import { DEFAULT_READY_TIMEOUT_MS, type WaitOptions } from '../vm/index.ts';
import { Changes } from './changes.ts';
import { Lease } from './lease.ts';
import { Loan } from './loan.ts';
import { hostMemory, type MemoryGrant, type MemoryLedger } from './memory.ts';
import { checkPoolOptions, type PoolConfig } from './options.ts';
import { WaitQueue } from './queue.ts';
import type { Member } from './roster.ts';
import { sourceOf } from './sources.ts';
import { PoolCounters } from './stats.ts';
import { Stock, textOf } from './stock.ts';
import type {
  AcquireOptions,
  PoolOptions,
  PoolSizeOptions,
  PoolStats,
  VmLease,
  VmSource,
} from './types.ts';

/** Default of {@link AcquireOptions.timeoutMs}. */
const ACQUIRE_TIMEOUT_MS = 120_000;
/** Default of {@link VmPool.drain}: what users may take to end by themselves. */
const DRAIN_TIMEOUT_MS = 300_000;
/** Callers who may wait at once. */
const MAX_WAITING = 10_000;

/** What can take too long. */
type Operation = 'create' | 'acquire' | 'drain';

/**
 * VMs that stand ready. {@link VmPool.acquire} takes one without waiting for anything, as long as one is
 * there; what is used up is made again in the background, ahead of what is asked for.
 */
export class VmPool implements AsyncDisposable {
  /** Names it in errors and events. */
  readonly name: string;
  readonly #config: PoolConfig;
  readonly #memory: MemoryGrant;
  readonly #stock: Stock;
  readonly #waiters = new WaitQueue<VmLease>();
  readonly #counters = new PoolCounters();
  readonly #changes = new Changes();
  #state: 'open' | 'draining' | 'closed' = 'open';
  #closing: Promise<void> | undefined;

  /**
   * Makes a pool and waits until `minSize` VMs are ready.
   * @throws ConfigError, PoolMemoryError; PoolTimeoutError, and what `Vm.create` throws, where the first VMs
   *   cannot be made; nothing is left then
   */
  static async create(options: PoolOptions = {}): Promise<VmPool> {
    const config = checkPoolOptions(options);
    return VmPool.#open(await sourceOf(config.name, options), config, options, hostMemory);
  }

  /**
   * A pool over a source of one's own.
   * @param memory what to ask for the memory. Default: this host's
   * @throws as {@link VmPool.create}
   */
  static async over(
    source: VmSource,
    options: PoolSizeOptions & WaitOptions = {},
    memory: MemoryLedger = hostMemory,
  ): Promise<VmPool> {
    return VmPool.#open(source, checkPoolOptions(options), options, memory);
  }

  static async #open(
    source: VmSource,
    config: PoolConfig,
    { signal, timeoutMs }: WaitOptions,
    memory: MemoryLedger,
  ): Promise<VmPool> {
    signal?.throwIfAborted();
    const { name, minSize, maxSize } = config;
    const bytesPerVm = config.countedBytes ?? source.bytesPerVm;
    const pool = new VmPool(
      source,
      config,
      await memory.claim({ pool: name, maxSize, bytesPerVm }),
    );
    try {
      const { strategy } = source;
      events.emit('pool.created', { pool: name, strategy, minSize, maxSize });
      pool.#stock.begin();
      await pool.#until('create', () => pool.#stock.roster.idle.length >= minSize, {
        signal,
        timeoutMs: timeoutMs ?? DEFAULT_READY_TIMEOUT_MS * Math.max(1, minSize),
      });
      return pool;
    } catch (error) {
      await pool.close();
      throw error;
    }
  }

  private constructor(source: VmSource, config: PoolConfig, memory: MemoryGrant) {
    this.name = config.name;
    this.#config = config;
    this.#memory = memory;
    this.#stock = new Stock({
      config,
      source,
      counters: this.#counters,
      waiting: () => this.#waiters.size,
      onReady: (member) => this.#waiters.size > 0 && this.#waiters.serve(this.#lend(member)),
      onChange: (error) => this.#changes.tell(error),
    });
    memory.usedBytes = () => this.#stock.usedBytes();
  }

  /**
   * Takes a VM: one that is ready at once, else the next that gets ready, first come, first served.
   * @throws PoolClosedError, PoolFullError, PoolTimeoutError (its cause: why no VM could be made), the
   *   signal's reason
   */
  async acquire(o: AcquireOptions = {}): Promise<VmLease> {
    o.signal?.throwIfAborted();
    if (this.#state !== 'open') throw this.#closedError();
    const stock = this.#stock;
    const startedAt = performance.now();
    const isFirst = this.#waiters.size === 0;
    stock.demand.out(startedAt);
    stock.planSoon();
    const ready = isFirst ? stock.take(startedAt) : undefined;
    const lease = ready === undefined ? await this.#waitInLine(o) : this.#lend(ready);
    const waitedMs = performance.now() - startedAt;
    const hit = ready !== undefined;
    this.#counters.acquired(hit, waitedMs);
    events.emit('pool.acquired', { pool: this.name, vmId: lease.vm.id, hit, waitedMs });
    return lease;
  }

  /** What it looks like now, and what it has counted. */
  stats(): PoolStats {
    const { roster, making } = this.#stock;
    return this.#counters.snapshot({
      size: roster.size,
      idle: roster.idle.length,
      leased: roster.count('leased'),
      waiting: this.#waiters.size,
      making,
      resetting: roster.count('resetting'),
    });
  }

  /**
   * Takes no more callers, waits until those who have a VM, or wait for one, are done, and closes.
   * @throws PoolTimeoutError after `timeoutMs` (default 300 000), or the signal's reason; the pool goes on
   *   draining then
   */
  async drain({ signal, timeoutMs = DRAIN_TIMEOUT_MS }: WaitOptions = {}): Promise<void> {
    const leased = () => this.#stock.roster.count('leased');
    if (this.#state === 'open') {
      this.#state = 'draining';
      const waiting = this.#waiters.size;
      events.emit('pool.draining', { pool: this.name, leased: leased(), waiting });
      this.#stock.drain();
    }
    const isDone = () => this.#state === 'closed' || leased() + this.#waiters.size === 0;
    await this.#until('drain', isDone, { signal, timeoutMs });
    await this.close();
  }

  /** Ends all: who waits gets a `PoolClosedError`; all VMs are killed, leased ones too. Idempotent. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  async #close(): Promise<void> {
    this.#state = 'closed';
    const error = this.#closedError();
    this.#waiters.failAll(error);
    await this.#stock.close(error);
    this.#memory.release();
    this.#changes.tell(error);
    events.emit('pool.closed', { pool: this.name });
  }

  #waitInLine({ signal, timeoutMs = ACQUIRE_TIMEOUT_MS }: AcquireOptions): Promise<VmLease> {
    const waiting = this.#waiters.size;
    const { demand } = this.#stock;
    if (waiting >= MAX_WAITING) {
      demand.back(performance.now());
      throw new PoolFullError(`${waiting} callers wait for a VM of pool ${this.name} already`, {
        pool: this.name,
        waiting,
        hint: 'Ask for fewer VMs at a time, or raise maxSize.',
      });
    }
    return this.#waiters.wait({
      timeoutMs: Math.min(timeoutMs, MAX_TIMEOUT_MS),
      signal,
      onTimeout: () => {
        this.#counters.timedOut();
        return this.#timeoutError('acquire', timeoutMs);
      },
      onGiveUp: () => {
        demand.back(performance.now());
        this.#changes.tell();
      },
    });
  }

  #lend(member: Member): VmLease {
    member.lend();
    const startedAt = performance.now();
    const loan = new Loan(member.vm, this.name);
    return new Lease(loan.vm, async (how) => {
      const isClean = loan.end();
      const heldMs = performance.now() - startedAt;
      events.emit('pool.released', { pool: this.name, vmId: member.vm.id, heldMs });
      if (how === 'destroy') await this.#stock.destroy(member);
      else this.#stock.takeBack(member, isClean);
    });
  }

  #until(operation: Operation, holds: () => boolean, o: WaitOptions & { timeoutMs: number }) {
    return this.#changes.until({
      holds,
      signal: o.signal,
      timeoutMs: Math.min(o.timeoutMs, MAX_TIMEOUT_MS),
      onTimeout: () => this.#timeoutError(operation, o.timeoutMs),
      // Whoever waits for the first VMs is told why there will be none; a drain outlasts that.
      failsWith: () => operation === 'create',
    });
  }

  #timeoutError(operation: Operation, timeoutMs: number): PoolTimeoutError {
    const { size, leased, waiting, making } = this.stats();
    const state = `${size} VMs, ${leased} leased, ${waiting} waited for, ${making} on their way up`;
    const cause = this.#stock.lastError;
    const why = cause === undefined ? '' : `; no VM can be made: ${textOf(cause)}`;
    const hints: Readonly<Record<Operation, string>> = {
      create: 'Raise timeoutMs, or lower minSize.',
      acquire: `Raise maxSize (now ${this.#config.maxSize}) or the timeout, or release VMs sooner.`,
      drain: 'Release what is leased, or close the pool.',
    };
    return new PoolTimeoutError(
      `pool ${this.name}: ${operation} not done within ${Math.round(timeoutMs)} ms (${state})${why}`,
      {
        pool: this.name,
        operation,
        timeoutMs,
        cause,
        hint: (cause instanceof QmpAgentError ? cause.hint : undefined) ?? hints[operation],
      },
    );
  }

  #closedError(): PoolClosedError {
    const what = this.#state === 'draining' ? 'is draining' : 'is closed';
    return new PoolClosedError(`pool ${this.name} ${what}`, {
      pool: this.name,
      hint: 'Make another pool: `VmPool.create`.',
    });
  }
}
