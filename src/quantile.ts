/**
 * The q-quantile by the nearest-rank method (the smallest sample that at least q of all samples do
 * not exceed), so that every figure is a value that was really measured.
 *
 * @throws RangeError for an empty list or a q outside 0…1.
 */
export function quantile(samples: readonly number[], q: number): number {
  if (samples.length === 0) throw new RangeError('quantile of no samples');
  if (q < 0 || q > 1) throw new RangeError(`quantile ${q} is outside 0…1`);
  const sorted = [...samples].sort((a, b) => a - b);
  const rank = Math.max(1, Math.ceil(q * sorted.length));
  return sorted[rank - 1] as number;
}
