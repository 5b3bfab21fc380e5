import { describe, expect, test } from 'vitest';
import {
  outcomeOf,
  parseRecords,
  tooFlaky,
  type RunRecord,
} from '../../../scripts/suites/records.ts';
import { summaryText, totals } from '../../../scripts/suites/summary.ts';

const passed: RunRecord = {
  type: 'test',
  project: 'unit',
  file: 'a.test.ts',
  name: 'works',
  state: 'passed',
};
const failed: RunRecord = { ...passed, name: 'breaks', state: 'failed', errors: ['Error: no'] };
const skipped: RunRecord = {
  ...passed,
  name: 'needs KVM',
  state: 'skipped',
  reason: 'no /dev/kvm',
};
const end: RunRecord = { type: 'end' };
const ok = { exitCode: 0, durationMs: 1_000 };

describe('outcomeOf', () => {
  test('counts tests by state', () => {
    const outcome = outcomeOf('unit', [passed, failed, skipped, end], { ...ok, exitCode: 1 });
    expect(outcome).toMatchObject({
      passed: 1,
      failures: [{ name: 'a.test.ts > breaks', message: 'Error: no' }],
      skips: [{ name: 'a.test.ts > needs KVM', reason: 'no /dev/kvm' }],
    });
  });

  test('a run that died keeps its results and counts as one failure more', () => {
    const died = { exitCode: undefined, signal: 'SIGKILL', durationMs: 5, tail: 'last words' };
    const outcome = outcomeOf('lab', [passed], died);
    expect(outcome.passed).toBe(1);
    expect(outcome.failures).toEqual([
      { name: 'suite lab', message: 'died: killed by SIGKILL\nlast words' },
    ]);
  });

  test.each([
    ['no test at all', [end], ok, /ran no test/],
    ['a failure that no record names', [passed, end], { ...ok, exitCode: 1 }, /exit code 1/],
    ['a deadline', [passed], { ...ok, timedOut: true }, /deadline of the suite/],
  ])('%s is a failure', (_name, records, how, message) => {
    const outcome = outcomeOf('e2e', records, how);
    expect(outcome.failures).toHaveLength(1);
    expect(outcome.failures[0]?.message).toMatch(message);
  });

  test('a fault outside of tests is a failure', () => {
    const fault: RunRecord = {
      type: 'fault',
      file: 'b.test.ts',
      name: 'loading',
      errors: ['SyntaxError'],
    };
    expect(outcomeOf('unit', [passed, fault, end], { ...ok, exitCode: 1 }).failures).toEqual([
      { name: 'b.test.ts > loading', message: 'SyntaxError' },
    ]);
  });
});

test('what passed at its second try is named with what was wrong at first; a few of those fail a run', () => {
  const second: RunRecord = { ...passed, errors: ['TimeoutError: late'] };
  const outcome = outcomeOf('e2e', [passed, second, second, second, end], ok);
  expect(outcome).toMatchObject({ passed: 4, failures: [] });
  const lines = summaryText([outcome]).split('\n');
  expect(lines).toContain('FLAKY [e2e] a.test.ts > works: passed at its second try');
  expect(lines).toContain('    TimeoutError: late');
  expect(tooFlaky([outcome])).toEqual([]);
  const exact = { ...second, file: 'test/integration/nft/a.test.ts' };
  expect(outcomeOf('integration', [exact, end], ok)).toMatchObject({
    ...{ passed: 0, flaky: [], failures: [{ message: 'TimeoutError: late' }] },
  });
  const another = outcomeOf('lab', [second, end], ok);
  expect(totals(tooFlaky([outcome, another])).failed).toBe(1);
});

test('parseRecords drops half a last line', () => {
  const text = `${JSON.stringify(passed)}\n${JSON.stringify(failed).slice(0, 20)}`;
  expect(parseRecords(text)).toEqual([passed]);
});

test('the summary ends with the totals, names failures, and says why tests were skipped', () => {
  const outcomes = [
    outcomeOf('unit', [passed, skipped, end], ok),
    outcomeOf('e2e', [passed, failed, end], { ...ok, exitCode: 1 }),
  ];
  const lines = summaryText(outcomes).split('\n');
  expect(lines.at(-1)).toBe('2 passed, 1 failed, 1 skipped');
  expect(lines).toContain('SKIPPED [unit] a.test.ts > needs KVM: no /dev/kvm');
  expect(lines).toContain('FAILED [e2e] a.test.ts > breaks');
  expect(lines.filter((line) => /^\d+ passed, \d+ failed, \d+ skipped$/.test(line))).toHaveLength(
    1,
  );
  expect(totals(outcomes)).toEqual({ passed: 2, failed: 1, skipped: 1 });
});
