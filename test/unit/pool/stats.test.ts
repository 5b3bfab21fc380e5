import { expect, it } from 'vitest';
import { PoolCounters } from '../../../src/pool/stats.ts';

const NOW = { size: 0, idle: 0, leased: 0, waiting: 0, making: 0, resetting: 0 };

it('has no quantiles before the first acquire', () => {
  expect(new PoolCounters().snapshot(NOW)).toEqual({
    ...NOW,
    ...{ hits: 0, misses: 0, timeouts: 0, made: 0, removed: 0, resets: 0, failures: 0 },
    acquireMs: undefined,
  });
});

it('counts, and takes the quantiles of the latest waits', () => {
  const counters = new PoolCounters();
  for (let i = 0; i < 5_000; i += 1) counters.acquired(true, 1_000);
  for (let i = 1; i <= 1_024; i += 1) counters.acquired(false, i);
  counters.removed('surplus');
  counters.removed('died');
  counters.sourceFailed();
  expect(counters.snapshot(NOW)).toMatchObject({
    hits: 5_000,
    misses: 1_024,
    removed: 2,
    failures: 2,
    acquireMs: { p50: 512, p95: 973, p99: 1_014 },
  });
});
