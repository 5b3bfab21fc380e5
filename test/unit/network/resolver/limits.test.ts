import { describe, expect, it } from 'vitest';
import {
  DEFAULT_LIMITS,
  QueryLimits,
  resolveLimits,
  TokenBucket,
} from '../../../../src/network/resolver/limits.ts';
import { PendingGate } from '../../../../src/network/resolver/pending.ts';
import type { ResolverLimits } from '../../../../src/network/resolver/types.ts';

function clock() {
  let ms = 1_000;
  return { now: () => ms, pass: (by: number) => (ms += by) };
}

function limitsOf(values: Partial<ResolverLimits>, now: () => number = () => 0) {
  return new QueryLimits(resolveLimits(values), now);
}

describe('TokenBucket', () => {
  it('gives a burst, then as fast as it fills', () => {
    const { now, pass } = clock();
    const bucket = new TokenBucket(10, 3, now);
    expect([1, 2, 3, 4].map(() => bucket.take())).toEqual([true, true, true, false]);
    pass(99);
    expect(bucket.take()).toBe(false);
    pass(1);
    expect(bucket.take()).toBe(true);
    pass(3_600_000);
    expect([1, 2, 3, 4].map(() => bucket.take())).toEqual([true, true, true, false]);
  });
});

describe('rate', () => {
  it('refuses over the rate, drops over twice the rate, and recovers', () => {
    const { now, pass } = clock();
    const limits = limitsOf({ queriesPerSecond: 10, queryBurst: 20 }, now);
    const admissions = Array.from({ length: 50 }, () => limits.admit());
    const count = (what: string) => admissions.filter((admission) => admission === what).length;
    expect([count('serve'), count('refuse'), count('drop')]).toEqual([20, 20, 10]);
    pass(1_000);
    expect(Array.from({ length: 10 }, () => limits.admit())).toEqual(Array(10).fill('serve'));
  });
});

describe('form of a name', () => {
  const limits = limitsOf({});
  it.each([
    ['packages.example.org', undefined],
    [`${'a'.repeat(52)}.example`, undefined],
    [`${'a'.repeat(53)}.example`, 'labelBytes'],
    ['1.2.3.4.5.6.7.8.9.10.11.12', undefined],
    ['1.2.3.4.5.6.7.8.9.10.11.12.13', 'labels'],
    [`${`${'a'.repeat(40)}.`.repeat(3)}a2345`, undefined],
    [`${`${'a'.repeat(40)}.`.repeat(3)}a23456`, 'nameBytes'],
    ['', undefined],
  ])('%s: %s', (name, limit) => {
    expect(limits.checkName(name)).toBe(limit);
  });
});

describe('what goes upstream', () => {
  it('bounds different names under one parent, and lets known ones pass', () => {
    const { now, pass } = clock();
    const limits = limitsOf({ namesPerParentPerMinute: 3 }, now);
    for (const name of ['a.x.org', 'b.c.x.org', 'x.org', 'a.x.org']) {
      expect(limits.spend(name, true)).toBeUndefined();
    }
    expect(limits.spend('d.x.org', true)).toBe('namesPerParentPerMinute');
    expect(limits.spend('a.x.org', true)).toBeUndefined();
    expect(limits.spend('d.y.org', true)).toBeUndefined();
    pass(59_999);
    expect(limits.spend('d.x.org', true)).toBe('namesPerParentPerMinute');
    pass(1);
    expect(limits.spend('d.x.org', true)).toBeUndefined();
  });

  it('bounds different names in all', () => {
    const limits = limitsOf({ namesPerMinute: 50 });
    const spent = Array.from({ length: 60 }, (_, index) => limits.spend(`a.x${index}.org`, true));
    expect(spent.filter((limit) => limit === undefined)).toHaveLength(50);
    expect(spent[59]).toBe('namesPerMinute');
  });

  it('bounds queries for other records than addresses, asked again or not', () => {
    const limits = limitsOf({ otherQueriesPerMinute: 2 });
    expect(limits.spend('x.org', false)).toBeUndefined();
    expect(limits.spend('x.org', false)).toBeUndefined();
    expect(limits.spend('x.org', false)).toBe('otherQueriesPerMinute');
    expect(limits.spend('x.org', true)).toBeUndefined();
  });
});

describe('values', () => {
  it('fills in defaults', () => {
    expect(resolveLimits({ labels: 3 })).toEqual({ ...DEFAULT_LIMITS, labels: 3 });
  });

  it.each([
    ['queriesPerSecond', 0],
    ['labels', 1.5],
    ['nameBytes', 254],
    ['tcpConnections', Number.NaN],
    ['namesPerMinute', 1e9],
  ] as const)('refuses %s of %d', (key, value) => {
    expect(() => resolveLimits({ [key]: value })).toThrow(new RegExp(`limits\\.${key}`));
  });
});

describe('PendingGate', () => {
  it('keeps a few places for each client when the house is full', () => {
    const gate = new PendingGate(10);
    for (let own = 0; own < 10; own += 1) expect(gate.enter(own)).toBe(true);
    expect(gate.enter(10)).toBe(false);
    for (let own = 0; own < 8; own += 1) expect(gate.enter(own)).toBe(true);
    expect(gate.enter(8)).toBe(false);
    for (let index = 0; index < 9; index += 1) gate.leave();
    expect(gate.enter(8)).toBe(true);
  });
});
