/** Bounds of use over time. The clock is given, so that tests need not wait. */
import { ConfigError } from '../../errors.ts';
import { parentOf } from './names.ts';
import type { ResolverLimits } from './types.ts';

export const DEFAULT_LIMITS: ResolverLimits = {
  queriesPerSecond: 100,
  queryBurst: 300,
  nameBytes: 128,
  labelBytes: 52,
  labels: 12,
  namesPerParentPerMinute: 100,
  namesPerMinute: 2000,
  otherQueriesPerMinute: 300,
  otherAnswerBytes: 2048,
  pendingQueries: 64,
  tcpConnections: 16,
};

/** Each limit's greatest value: what the resolver's own memory and descriptors allow. */
const MOST: ResolverLimits = {
  queriesPerSecond: 10_000,
  queryBurst: 30_000,
  nameBytes: 253,
  labelBytes: 63,
  labels: 127,
  namesPerParentPerMinute: 20_000,
  namesPerMinute: 20_000,
  otherQueriesPerMinute: 600_000,
  otherAnswerBytes: 16_384,
  pendingQueries: 512,
  tcpConnections: 256,
};

const WINDOW_MS = 60_000;

/**
 * Fills in what is not given.
 *
 * @throws {@link ConfigError} for a value that is no limit
 */
export function resolveLimits(given: Partial<ResolverLimits> = {}): ResolverLimits {
  const limits: { -readonly [K in keyof ResolverLimits]: number } = { ...DEFAULT_LIMITS };
  for (const key of Object.keys(limits) as LimitName[]) {
    const value = given[key];
    if (value === undefined) continue;
    if (!Number.isSafeInteger(value) || value < 1 || value > MOST[key]) {
      const field = `limits.${key}`;
      throw new ConfigError(`${field}: ${value} is out of bounds`, {
        field,
        value,
        hint: `give a whole number from 1 to ${MOST[key]}`,
      });
    }
    limits[key] = value;
  }
  return limits;
}

/** So many at once, and so many a second after that. */
export class TokenBucket {
  readonly #perSecond: number;
  readonly #burst: number;
  readonly #now: () => number;
  #tokens: number;
  #filledAt: number;

  constructor(perSecond: number, burst: number, now: () => number) {
    this.#perSecond = perSecond;
    this.#burst = burst;
    this.#now = now;
    this.#tokens = burst;
    this.#filledAt = now();
  }

  /** @returns false where there is none left */
  take(): boolean {
    const now = this.#now();
    const gained = ((now - this.#filledAt) / 1000) * this.#perSecond;
    this.#tokens = Math.min(this.#burst, this.#tokens + gained);
    this.#filledAt = now;
    if (this.#tokens < 1) return false;
    this.#tokens -= 1;
    return true;
  }
}

/** The name of the limit that a query is past. */
export type LimitName = keyof ResolverLimits;

/** The limits of one client, and how much of them is used. */
export class QueryLimits {
  readonly values: ResolverLimits;
  readonly #now: () => number;
  readonly #queries: TokenBucket;
  readonly #refusals: TokenBucket;
  #windowEnds = 0;
  #otherQueries = 0;
  #names = new Set<string>();
  #namesOfParent = new Map<string, number>();

  constructor(values: ResolverLimits, now: () => number) {
    this.values = values;
    this.#now = now;
    this.#queries = new TokenBucket(values.queriesPerSecond, values.queryBurst, now);
    this.#refusals = new TokenBucket(values.queriesPerSecond, values.queryBurst, now);
  }

  /**
   * Counts a query as it comes in. A flood is refused for a while, so that whoever is over the rate by
   * mistake learns of it, and past twice the rate it is not even answered.
   */
  admit(): 'serve' | 'refuse' | 'drop' {
    if (this.#queries.take()) return 'serve';
    return this.#refusals.take() ? 'refuse' : 'drop';
  }

  /** The limit that the name's form is past. */
  checkName(name: string): LimitName | undefined {
    if (name.length > this.values.nameBytes) return 'nameBytes';
    const labels = name.split('.');
    if (labels.length > this.values.labels) return 'labels';
    return labels.some((label) => label.length > this.values.labelBytes) ? 'labelBytes' : undefined;
  }

  /**
   * Counts a query that is about to go upstream, where it could carry something out. Windows are whole
   * minutes from the first query on, so twice the limit fits around the end of one.
   *
   * @param isAddress whether it asks for addresses
   * @returns the limit that it is past; then it is not counted
   */
  spend(name: string, isAddress: boolean): LimitName | undefined {
    this.#turn();
    if (!isAddress && this.#otherQueries >= this.values.otherQueriesPerMinute) {
      return 'otherQueriesPerMinute';
    }
    if (!this.#names.has(name)) {
      const parent = parentOf(name);
      const siblings = this.#namesOfParent.get(parent) ?? 0;
      if (siblings >= this.values.namesPerParentPerMinute) return 'namesPerParentPerMinute';
      if (this.#names.size >= this.values.namesPerMinute) return 'namesPerMinute';
      this.#names.add(name);
      this.#namesOfParent.set(parent, siblings + 1);
    }
    if (!isAddress) this.#otherQueries += 1;
    return undefined;
  }

  #turn(): void {
    const now = this.#now();
    if (now < this.#windowEnds) return;
    this.#windowEnds = now + WINDOW_MS;
    this.#otherQueries = 0;
    this.#names = new Set();
    this.#namesOfParent = new Map();
  }
}
