/** What a pool counts. */
import { quantile } from '../quantile.ts';
import type { PoolRemovalReason } from '../events.ts';
import type { PoolStats } from './types.ts';

/** Waits of that many acquires, the latest, make the quantiles. */
const MAX_SAMPLES = 1_024;

/** Removals that mean that something was wrong with the VM. */
const FAULTS: readonly PoolRemovalReason[] = ['reset-failed', 'unhealthy', 'died'];

/** Counters of one pool since it was made. */
export class PoolCounters {
  #hits = 0;
  #misses = 0;
  #timeouts = 0;
  #made = 0;
  #removed = 0;
  #resets = 0;
  #failures = 0;
  readonly #waits: number[] = [];
  #next = 0;

  /** A lease was given after so long. */
  acquired(hit: boolean, waitedMs: number): void {
    if (hit) this.#hits += 1;
    else this.#misses += 1;
    this.#waits[this.#next] = waitedMs;
    this.#next = (this.#next + 1) % MAX_SAMPLES;
  }

  timedOut(): void {
    this.#timeouts += 1;
  }

  made(): void {
    this.#made += 1;
  }

  reset(): void {
    this.#resets += 1;
  }

  removed(reason: PoolRemovalReason): void {
    this.#removed += 1;
    if (FAULTS.includes(reason)) this.#failures += 1;
  }

  /** A VM could not be made. */
  sourceFailed(): void {
    this.#failures += 1;
  }

  /** All of it, beside what the pool looks like now. */
  snapshot(now: Pick<PoolStats, 'size' | 'idle' | 'leased' | 'waiting' | 'making' | 'resetting'>) {
    const waits = this.#waits;
    return {
      ...now,
      hits: this.#hits,
      misses: this.#misses,
      timeouts: this.#timeouts,
      made: this.#made,
      removed: this.#removed,
      resets: this.#resets,
      failures: this.#failures,
      acquireMs:
        waits.length === 0
          ? undefined
          : {
              p50: quantile(waits, 0.5),
              p95: quantile(waits, 0.95),
              p99: quantile(waits, 0.99),
            },
    } satisfies PoolStats;
  }
}
