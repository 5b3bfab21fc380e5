import { expect, it } from 'vitest';
import { BACKOFF_MAX_MS, BACKOFF_MIN_MS, backoffMs } from '../../../src/pool/backoff.ts';

it('doubles with each failure, up to a limit', () => {
  expect([1, 2, 3, 4].map((n) => backoffMs(n, 0) / BACKOFF_MIN_MS)).toEqual([1, 2, 4, 8]);
  expect(backoffMs(30, 0)).toBe(BACKOFF_MAX_MS);
  expect(backoffMs(5_000, 0)).toBe(BACKOFF_MAX_MS);
});

it('is up to a quarter less, so that pools do not try in step', () => {
  expect(backoffMs(2, 1)).toBe(0.75 * backoffMs(2, 0));
  expect(backoffMs(2, 0.5)).toBe(0.875 * backoffMs(2, 0));
});
