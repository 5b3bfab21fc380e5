/**
 * vitest reporter that appends one record a test to the file named by QMP_AGENT_TEST_RECORDS
 * (see records.ts). vitest's own JSON reporter writes only at the end, and drops the reason of a
 * skip.
 */
import { appendFileSync } from 'node:fs';
import type { Reporter, SerializedError, TestCase, TestModule, TestSuite } from 'vitest/node';
import type { RunRecord } from './records.ts';

/** Longest error text kept for one error, characters. */
const MAX_ERROR_CHARS = 8_000;

export default class RecordReporter implements Reporter {
  readonly #path = process.env['QMP_AGENT_TEST_RECORDS'];

  onTestCaseResult(test: TestCase): void {
    const result = test.result();
    if (result.state === 'pending') return;
    const { duration: durationMs, retryCount = 0 } = test.diagnostic() ?? {};
    const record: RunRecord = {
      type: 'test',
      project: test.project.name,
      file: test.module.relativeModuleId,
      name: test.fullName,
      state: result.state,
      ...(durationMs === undefined ? {} : { durationMs: Math.round(durationMs) }),
    };
    if (result.state === 'skipped' && result.note !== undefined) record.reason = result.note;
    // Of one that passed at its second try, what was wrong with the first.
    if (result.state === 'failed' || retryCount > 0)
      record.errors = (result.errors ?? []).map(textOf);
    this.#append(record);
  }

  onTestSuiteResult(suite: TestSuite): void {
    this.#fault(suite.module, suite.fullName, suite.errors());
  }

  onTestModuleEnd(module: TestModule): void {
    this.#fault(module, 'loading and hooks of the file', module.errors());
  }

  onTestRunEnd(
    _modules: readonly TestModule[],
    unhandled: readonly SerializedError[],
    _reason: string,
  ): void {
    if (unhandled.length > 0) {
      this.#append({
        type: 'fault',
        name: 'error outside of any test',
        errors: unhandled.map(textOf),
      });
    }
    this.#append({ type: 'end' });
  }

  #fault(module: TestModule, name: string, errors: readonly SerializedError[]): void {
    if (errors.length === 0) return;
    this.#append({
      type: 'fault',
      project: module.project.name,
      file: module.relativeModuleId,
      name,
      errors: errors.map(textOf),
    });
  }

  #append(record: RunRecord): void {
    if (this.#path !== undefined) appendFileSync(this.#path, `${JSON.stringify(record)}\n`);
  }
}

function textOf(error: SerializedError): string {
  const frame = error.stacks?.[0];
  const where = frame === undefined ? '' : `\n    at ${frame.file}:${frame.line}`;
  const diff = typeof error.diff === 'string' ? `\n${error.diff}` : '';
  return `${error.name ?? 'Error'}: ${error.message}${diff}${where}`.slice(0, MAX_ERROR_CHARS);
}
