/** The end of a `scripts/test` run: what failed, at the first try or for good, what was skipped and why, and one closing line. */
import type { Outcome } from './records.ts';
import { seconds } from './records.ts';

/** Longest failure message shown in the summary, lines; the whole is in the suite's log. */
const MAX_MESSAGE_LINES = 40;

/** Totals over all suites. */
export function totals(outcomes: readonly Outcome[]): {
  passed: number;
  failed: number;
  skipped: number;
} {
  const sum = (count: (outcome: Outcome) => number): number =>
    outcomes.reduce((total, outcome) => total + count(outcome), 0);
  return {
    passed: sum((o) => o.passed),
    failed: sum((o) => o.failures.length),
    skipped: sum((o) => o.skips.length),
  };
}

/** The report's text; its very last line is `N passed, N failed, N skipped`. */
export function summaryText(outcomes: readonly Outcome[]): string {
  const lines: string[] = ['', '== summary'];
  for (const o of outcomes) {
    const counts = `${o.passed} passed, ${o.failures.length} failed, ${o.skips.length} skipped`;
    // Not in the form of the closing line, which is there once only.
    lines.push(`   ${o.suite.padEnd(12)} ${seconds(o.durationMs).padStart(9)}   ${counts}`);
  }
  for (const { suite, skips } of outcomes) {
    for (const skip of skips) lines.push(`SKIPPED [${suite}] ${skip.name}: ${skip.reason}`);
  }
  for (const { suite, flaky } of outcomes) {
    for (const first of flaky)
      lines.push(
        `FLAKY [${suite}] ${first.name}: passed at its second try`,
        ...indent(first.message),
      );
  }
  for (const { suite, failures } of outcomes) {
    for (const failure of failures) {
      lines.push(`FAILED [${suite}] ${failure.name}`, ...indent(failure.message));
    }
  }
  const { passed, failed, skipped } = totals(outcomes);
  lines.push('', `${passed} passed, ${failed} failed, ${skipped} skipped`);
  return lines.join('\n');
}

function indent(message: string): string[] {
  const lines = message.split('\n');
  const shown = lines.slice(0, MAX_MESSAGE_LINES);
  if (lines.length > shown.length) shown.push(`… ${lines.length - shown.length} more lines`);
  return shown.map((line) => `    ${line}`);
}
