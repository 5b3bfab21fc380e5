/** Coverage of the unit and integration suites together, for reading; it never fails a run. */
import type { RunEnd } from './records.ts';
import type { Suite } from './suites.ts';

const REPORT_MS = 3 * 60_000;

/** Merges what the covered suites measured and prints the totals; the pages are in coverage/. */
export async function reportCoverage(
  suites: readonly Suite[],
  run: (argv: readonly string[], timeoutMs: number) => Promise<RunEnd>,
): Promise<void> {
  if (!suites.some((suite) => suite.coverage)) return;
  const argv = [
    process.execPath,
    'node_modules/vitest/vitest.mjs',
    'run',
    '--merge-reports=test-results/blobs',
    '--reporter=dot',
    '--coverage',
    '--coverage.reporter=text-summary',
    '--coverage.reporter=html',
    '--coverage.reportsDirectory=coverage/all',
  ];
  await run(argv, REPORT_MS);
}
