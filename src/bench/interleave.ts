import { setTimeout as delay } from 'node:timers/promises';
import type { BenchSeries, BenchUnit } from './report.ts';

/** One figure of an interleaved run. */
export interface Measurement {
  name: string;
  unit: BenchUnit;
  /** Takes one sample. */
  sample: (signal: AbortSignal) => Promise<number>;
}

/** How an interleaved run goes. */
export interface InterleaveOptions {
  /** Samples of each figure. */
  runs: number;
  /** Rounds thrown away first, so that page cache and JIT are warm for all alike. Default 1. */
  warmup?: number;
  /** Pause before each sample, ms: what one leaves to be done falls on none of the others. Default 0. */
  settleMs?: number;
  signal: AbortSignal;
  /** Called after each sample. */
  onSample?: ((name: string, value: number, done: number, total: number) => void) | undefined;
}

/**
 * Takes the figures in turn, A B A B …, and every other round in reverse order, so that drift of
 * the host (frequency, other load, a filling page cache) falls on all of them alike.
 *
 * @throws whatever a sample throws, and `signal.reason`.
 */
export async function interleave(
  measurements: readonly Measurement[],
  options: InterleaveOptions,
): Promise<BenchSeries[]> {
  const { runs, warmup = 1, settleMs = 0, signal, onSample } = options;
  const samples = new Map<string, number[]>(measurements.map(({ name }) => [name, []]));
  const total = measurements.length * runs;
  let done = 0;
  for (let round = -warmup; round < runs; round += 1) {
    const order = round % 2 === 0 ? measurements : measurements.toReversed();
    for (const measurement of order) {
      signal.throwIfAborted();
      if (settleMs > 0) await delay(settleMs, undefined, { signal });
      const value = await measurement.sample(signal);
      if (round < 0) continue;
      samples.get(measurement.name)?.push(value);
      done += 1;
      onSample?.(measurement.name, value, done, total);
    }
  }
  return measurements.map(({ name, unit }) => ({ name, unit, samples: samples.get(name) ?? [] }));
}
