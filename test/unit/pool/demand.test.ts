import { expect, it } from 'vitest';
import { Demand } from '../../../src/pool/demand.ts';

const HORIZON_MS = 60_000;
const LEAD_MS = 8_000;

const times = (count: number, action: (i: number) => void) => {
  for (let i = 0; i < count; i += 1) action(i);
};

it('asks for nothing where nobody asked', () => {
  expect(new Demand(HORIZON_MS).spares(0, LEAD_MS)).toBe(0);
});

it('asks for as many as a burst took, until it is forgotten', () => {
  const demand = new Demand(HORIZON_MS);
  times(5, (i) => demand.out(i * 10));
  expect(demand.spares(100, LEAD_MS)).toBe(5);
  times(5, (i) => demand.back(2_000 + i));
  expect(demand.spares(HORIZON_MS - 1, LEAD_MS)).toBe(5);
  expect(demand.spares(HORIZON_MS + 100, LEAD_MS)).toBe(0);
});

it('asks for one where users come one after the other and their VMs come back', () => {
  const demand = new Demand(HORIZON_MS);
  times(100, (i) => {
    demand.out(i * 100);
    demand.back(i * 100 + 50);
  });
  expect(demand.spares(10_000, LEAD_MS)).toBe(1);
});

it('asks for what is used up while the next VM is made, where none comes back', () => {
  const demand = new Demand(HORIZON_MS);
  times(50, (i) => demand.out(i * 1_000));
  // At 0, 1000 … 8000: nine within eight seconds, both ends counted.
  expect(demand.spares(50_000, 8_000)).toBe(9);
  expect(demand.spares(50_000, 500)).toBe(1);
});

it('does not take the end of one burst for the start of the next', () => {
  const demand = new Demand(HORIZON_MS);
  times(3, () => demand.out(0));
  times(4, () => demand.out(20_000));
  expect(demand.spares(21_000, LEAD_MS)).toBe(4);
  expect(demand.spares(21_000, 30_000)).toBe(7);
});

it('keeps a bounded memory of what happened', () => {
  const demand = new Demand(HORIZON_MS);
  times(10_000, () => demand.out(1));
  const spares = demand.spares(2, LEAD_MS);
  expect(spares).toBeGreaterThanOrEqual(1_024);
  expect(spares).toBeLessThanOrEqual(2_048);
});

it('finds what a look at every span finds', () => {
  const random = (
    (seed) => () =>
      (seed = (seed * 16_807) % 2_147_483_647) / 2_147_483_647
  )(7);
  const changes = Array.from({ length: 200 }, (_, i) => ({
    atMs: i * 100 + Math.floor(random() * 100),
    by: random() < 0.6 ? -1 : 1,
  }));
  for (const lead of [0, 250, 1_000, 5_000]) {
    const demand = new Demand(HORIZON_MS);
    for (const { atMs, by } of changes)
      if (by < 0) demand.out(atMs);
      else demand.back(atMs);
    let largest = 0;
    for (let from = 0; from < changes.length; from += 1) {
      let sum = 0;
      for (const { atMs, by } of changes.slice(from)) {
        if (atMs - (changes[from]?.atMs ?? 0) > lead) break;
        sum += by;
        largest = Math.max(largest, -sum);
      }
    }
    expect(demand.spares(20_100, lead), `lead ${lead}`).toBe(largest);
  }
});
