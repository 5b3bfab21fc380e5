/**
 * The shape of every benchmark's result, and the arithmetic behind it. Pure.
 *
 * A figure alone says little: each stands beside its floor, measured in the same run, interleaved,
 * and the ratio of the two is what a later run on another machine can be compared with.
 */
import { quantile } from '../quantile.ts';

/** Version of the JSON shape. */
export const BENCH_SCHEMA = 1;

/** Units of a figure. */
export type BenchUnit = 'ms' | 'us' | 'MiB/s' | '/s' | 'MiB' | '%';

/** Samples of one figure as they were taken, in order. */
export interface BenchSeries {
  /** Dotted, e.g. `boot.ready`. */
  name: string;
  unit: BenchUnit;
  samples: readonly number[];
}

/** One figure, summarised. */
export interface BenchResult extends BenchSeries {
  runs: number;
  min: number;
  p50: number;
  p95: number;
  p99: number;
  max: number;
}

/** `value` = p50 of `of` divided by p50 of `to`. */
export interface BenchRatio {
  name: string;
  of: string;
  to: string;
  value: number;
}

/** What the figures were taken on; figures of different fingerprints are not comparable. */
export interface BenchFingerprint {
  cpu: string;
  cores: number;
  memoryMib: number;
  kernel: string;
  qemu: string;
  accel: string;
  machine: string;
  image: string;
  channel: string;
  node: string;
  /** Load average of the last minute when the run began and when it ended. */
  load: { start: number; end: number };
}

export interface BenchReport {
  schema: typeof BENCH_SCHEMA;
  /** ISO 8601. */
  startedAt: string;
  fingerprint: BenchFingerprint;
  results: BenchResult[];
  ratios: BenchRatio[];
}

/** Summarises one series. @throws RangeError where it has no samples. */
export function summarise(series: BenchSeries): BenchResult {
  const { name, unit } = series;
  const samples = series.samples.map(round);
  return {
    name,
    unit,
    runs: samples.length,
    min: quantile(samples, 0),
    p50: quantile(samples, 0.5),
    p95: quantile(samples, 0.95),
    p99: quantile(samples, 0.99),
    max: quantile(samples, 1),
    samples,
  };
}

/** The ratio of the medians of two results. @throws RangeError where either is missing. */
export function ratio(
  results: readonly BenchResult[],
  wanted: { name: string; of: string; to: string },
): BenchRatio {
  const of = results.find((result) => result.name === wanted.of);
  const to = results.find((result) => result.name === wanted.to);
  if (of === undefined || to === undefined) {
    throw new RangeError(
      `ratio ${wanted.name}: ${of === undefined ? wanted.of : wanted.to} was not measured`,
    );
  }
  return { ...wanted, value: round(of.p50 / to.p50) };
}

/** Three decimals: a microsecond, where the unit is ms. */
function round(value: number): number {
  return Math.round(value * 1000) / 1000;
}

/** The report as lines for people. */
export function formatReport(report: BenchReport): string {
  const f = report.fingerprint;
  const lines = [
    `${f.cpu}, ${f.cores} cores, kernel ${f.kernel}, QEMU ${f.qemu}, ${f.accel}, ${f.machine}, ${f.channel}, image ${f.image}`,
    `load ${f.load.start} at the start, ${f.load.end} at the end`,
    '',
    row(['figure', 'unit', 'runs', 'min', 'p50', 'p95', 'p99', 'max']),
    ...report.results.map((r) =>
      row([r.name, r.unit, String(r.runs), ...[r.min, r.p50, r.p95, r.p99, r.max].map(short)]),
    ),
  ];
  if (report.ratios.length > 0) {
    lines.push('', ...report.ratios.map((r) => `${r.name}: ${r.of} / ${r.to} = ${short(r.value)}`));
  }
  return `${lines.join('\n')}\n`;
}

function row(cells: readonly string[]): string {
  const [name = '', unit = '', ...numbers] = cells;
  return `${name.padEnd(32)}${unit.padEnd(7)}${numbers.map((cell) => cell.padStart(10)).join('')}`;
}

function short(value: number): string {
  return value.toFixed(value < 10 ? 3 : 1);
}
