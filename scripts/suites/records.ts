/**
 * What a vitest run leaves behind for `scripts/test`: one JSON object a line, written as each test
 * ends. A run that dies half-way, in the lab for instance, keeps the results it had.
 */

/** A test that ended. */
export interface TestRecord {
  type: 'test';
  /** vitest project, `unit`, `e2e`, …. */
  project: string;
  /** Path from the project's root. */
  file: string;
  name: string;
  state: 'passed' | 'failed' | 'skipped';
  /** Why it was skipped, where the test said so. */
  reason?: string;
  /** Of a test that passed: at its second try, and these were the first one's. */
  errors?: string[];
  durationMs?: number;
}

/** An error outside of any test: a file that does not load, a failing hook, an unhandled rejection. */
export interface FaultRecord {
  type: 'fault';
  project?: string;
  file?: string;
  name: string;
  errors: string[];
}

/** Written last. A file without it comes from a run that died. */
export interface EndRecord {
  type: 'end';
}

export type RunRecord = TestRecord | FaultRecord | EndRecord;

/** One failing test, hook, step or check. */
export interface Failure {
  name: string;
  message: string;
}

/** One test or suite that did not run, and why. */
export interface Skip {
  name: string;
  reason: string;
}

/** What a suite came to. */
export interface Outcome {
  suite: string;
  passed: number;
  failures: Failure[];
  /** Passed, and counted as such, after a failure. */
  flaky: Failure[];
  skips: Skip[];
  durationMs: number;
}

/** Parses records; a last line that was cut off by a dying run is dropped. */
export function parseRecords(text: string): RunRecord[] {
  const records: RunRecord[] = [];
  for (const line of text.split('\n')) {
    if (line.trim() === '') continue;
    try {
      records.push(JSON.parse(line) as RunRecord);
    } catch {
      // Half a line: the `end` record is missing then, which is reported.
    }
  }
  return records;
}

/** How the process that wrote the records ended. */
export interface RunEnd {
  exitCode: number | undefined;
  signal?: string | undefined;
  timedOut?: boolean;
  durationMs: number;
  /** Last lines of its output, shown where it died. */
  tail?: string;
}

/**
 * Counts the records of one suite. A run that died, ran no test, or failed without naming a
 * failure counts as one failure more, so that no crash looks like a pass.
 */
export function outcomeOf(suite: string, records: readonly RunRecord[], end: RunEnd): Outcome {
  const outcome: Outcome = {
    suite,
    passed: 0,
    failures: [],
    flaky: [],
    skips: [],
    durationMs: end.durationMs,
  };
  let ended = false;
  for (const record of records) {
    if (record.type === 'end') {
      ended = true;
      continue;
    }
    const name = [record.file, record.name].filter(Boolean).join(' > ');
    if (record.type === 'fault') {
      outcome.failures.push({ name, message: record.errors.join('\n') });
    } else if (record.state === 'passed') {
      const flaw = record.errors && { name, message: record.errors.join('\n') };
      if (flaw !== undefined && EXACT.test(record.file)) {
        outcome.failures.push(flaw);
        continue;
      }
      outcome.passed += 1;
      if (flaw !== undefined) outcome.flaky.push(flaw);
    } else if (record.state === 'skipped') {
      outcome.skips.push({ name, reason: record.reason ?? 'no reason given' });
    } else {
      outcome.failures.push({ name, message: (record.errors ?? []).join('\n') });
    }
  }
  const how = describeEnd(end);
  if (!ended) {
    outcome.failures.push({ name: `suite ${suite}`, message: withTail(`died: ${how}`, end) });
  } else if (outcome.passed + outcome.failures.length + outcome.skips.length === 0) {
    outcome.failures.push({ name: `suite ${suite}`, message: withTail('ran no test', end) });
  } else if (end.exitCode !== 0 && outcome.failures.length === 0) {
    outcome.failures.push({
      name: `suite ${suite}`,
      message: withTail(`all tests passed, yet the run failed: ${how}`, end),
    });
  }
  return outcome;
}

/** Where no guest is emulated, and what fails once is a bug: whoever holds a lock, what passes a rule. */
const EXACT = /^test\/integration\/(lock|nft|network)\//;

/**
 * Tests that may pass at a second try only, in a whole run: more of them are no accident of a busy machine,
 * and the run has failed.
 */
const MAX_FLAKY = 3;

/** Of a run with too many flaky tests, an outcome that says so. */
export function tooFlaky(outcomes: readonly Outcome[]): Outcome[] {
  const count = outcomes.reduce((total, { flaky }) => total + flaky.length, 0);
  if (count <= MAX_FLAKY) return [];
  const message = `${count} tests passed at their second try only; ${MAX_FLAKY} may`;
  const failures = [{ name: 'flaky tests', message }];
  return [{ suite: 'flaky', passed: 0, failures, flaky: [], skips: [], durationMs: 0 }];
}

/** Names how a process ended: its deadline, a signal, or an exit code. */
export function describeEnd(end: RunEnd): string {
  if (end.timedOut === true) return `deadline of the suite passed after ${seconds(end.durationMs)}`;
  if (end.signal !== undefined) return `killed by ${end.signal}`;
  return `exit code ${end.exitCode ?? 'unknown'}`;
}

/** The run's end with the last lines of its output, for a failure's message. */
export function withTail(message: string, end: RunEnd): string {
  return end.tail === undefined || end.tail === '' ? message : `${message}\n${end.tail}`;
}

/** Milliseconds as seconds for a reader, `12.3 s`. */
export function seconds(ms: number): string {
  return `${(ms / 1000).toFixed(1)} s`;
}
