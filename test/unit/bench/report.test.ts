import { describe, expect, it } from 'vitest';
import { interleave } from '../../../src/bench/interleave.ts';
import { ratio, summarise } from '../../../src/bench/report.ts';
import { quantile } from '../../../src/quantile.ts';

describe('quantile', () => {
  it('gives values that were measured, by nearest rank', () => {
    const samples = [30, 10, 20, 40];
    expect(quantile(samples, 0)).toBe(10);
    expect(quantile(samples, 0.5)).toBe(20);
    expect(quantile(samples, 0.75)).toBe(30);
    expect(quantile(samples, 0.95)).toBe(40);
    expect(quantile(samples, 1)).toBe(40);
  });

  it('does not reorder what it was given', () => {
    const samples = [3, 1, 2];
    quantile(samples, 0.5);
    expect(samples).toEqual([3, 1, 2]);
  });

  it('refuses no samples and a q outside 0…1', () => {
    expect(() => quantile([], 0.5)).toThrow(RangeError);
    expect(() => quantile([1], 1.1)).toThrow(RangeError);
  });
});

describe('summarise and ratio', () => {
  const ready = summarise({ name: 'boot.ready', unit: 'ms', samples: [120, 110, 130] });
  const floor = summarise({ name: 'boot.floor', unit: 'ms', samples: [100, 90, 110.00049] });

  it('keeps the samples in the order in which they were taken', () => {
    expect(ready).toEqual({
      name: 'boot.ready',
      unit: 'ms',
      runs: 3,
      min: 110,
      p50: 120,
      p95: 130,
      p99: 130,
      max: 130,
      samples: [120, 110, 130],
    });
    expect(floor.samples[2]).toBe(110);
  });

  it('divides medians', () => {
    const wanted = { name: 'boot.overhead', of: 'boot.ready', to: 'boot.floor' };
    expect(ratio([ready, floor], wanted)).toEqual({ ...wanted, value: 1.2 });
  });

  it('names a figure that was not measured', () => {
    expect(() => ratio([ready], { name: 'x', of: 'boot.ready', to: 'boot.floor' })).toThrow(
      /boot\.floor/,
    );
  });
});

describe('interleave', () => {
  it('takes figures in turn, alternating the order, and drops the warm-up', async () => {
    const order: string[] = [];
    const take = (name: string, value: number) => ({
      name,
      unit: 'ms' as const,
      sample: () => {
        order.push(name);
        return Promise.resolve(value);
      },
    });
    const series = await interleave([take('a', 1), take('b', 2)], {
      runs: 2,
      signal: new AbortController().signal,
    });
    expect(order).toEqual(['b', 'a', 'a', 'b', 'b', 'a']);
    expect(series.map(({ name, samples }) => [name, samples])).toEqual([
      ['a', [1, 1]],
      ['b', [2, 2]],
    ]);
  });

  it('stops at an abort', async () => {
    const controller = new AbortController();
    const reason = new Error('enough');
    const sample = () => {
      controller.abort(reason);
      return Promise.resolve(1);
    };
    await expect(
      interleave([{ name: 'a', unit: 'ms', sample }], { runs: 5, signal: controller.signal }),
    ).rejects.toBe(reason);
  });
});
