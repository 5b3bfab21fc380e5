/**
 * Runs the chosen suites, two at a time where the lab is one of them, and sums them up. `scripts/test`
 * has installed what is needed and built the project before it starts this.
 *
 * Whatever happens, the last line is `N passed, N failed, N skipped`: each suite has its deadline
 * and the whole run has one, after which the rest counts as failed.
 */
import { randomBytes } from 'node:crypto';
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { runCommand } from './command.ts';
import { reportCoverage } from './coverage.ts';
import type { Outcome, RunEnd } from './records.ts';
import { describeEnd, outcomeOf, parseRecords, seconds, tooFlaky, withTail } from './records.ts';
import { chooseSuites, LAB, type Suite } from './suites.ts';
import { summaryText, totals } from './summary.ts';
import { checkSurvivors, RUN_MARKER, takeStock } from './survivors.ts';

const RESULTS = 'test-results';
const DEFAULT_DEADLINE_S = 85 * 60;
const IMAGE_BUILD_MS = 15 * 60_000;

const runId = randomBytes(6).toString('hex');
// Counted from the start of scripts/test, which hands its own start time down.
const startedAt = Number(process.env['QMP_AGENT_TEST_STARTED_MS'] ?? Date.now());
const deadlineAt =
  startedAt + Number(process.env['QMP_AGENT_TEST_DEADLINE_S'] ?? DEFAULT_DEADLINE_S) * 1000;
// Temporary files of the run are in a directory of its own, so that what is left of them shows. The
// name is short: socket paths have 107 bytes. Builds that map user ids must be able to enter it.
const temporaryDir = mkdtempSync(join(tmpdir(), 'qa-'));
chmodSync(temporaryDir, 0o755);
const baseEnv = {
  TMPDIR: temporaryDir,
  [RUN_MARKER]: runId,
  NO_COLOR: '1',
  CI: process.env['CI'] ?? 'true',
};

async function run(
  name: string,
  argv: readonly string[],
  timeoutMs: number,
  { env = {}, label }: { env?: NodeJS.ProcessEnv; label?: string | undefined } = {},
): Promise<RunEnd> {
  console.log(`\n== ${name}`);
  const end = await runCommand(argv, {
    env: { ...baseEnv, ...env },
    timeoutMs: Math.max(1, Math.min(timeoutMs, deadlineAt - Date.now())),
    logPath: join(RESULTS, `${name}.log`),
    label,
  });
  console.log(
    `== ${name}: ${seconds(end.durationMs)}${end.exitCode === 0 ? '' : `, ${describeEnd(end)}`}`,
  );
  return end;
}

async function runSuite(suite: Suite, label?: string): Promise<Outcome> {
  const records = join(RESULTS, `${suite.name}.ndjson`);
  const env = {
    QMP_AGENT_TEST_RECORDS: join(process.cwd(), records),
    ...(suite.needsBuild ? { QMP_AGENT_TEST_BUILT: 'yes' } : {}),
  };
  const end = await run(suite.name, suite.argv, suite.timeoutMs, { env, label });
  let text = '';
  try {
    text = readFileSync(suite.recordsPath ?? records, 'utf8');
  } catch {
    // No record at all: outcomeOf says that the run died.
  }
  return outcomeOf(suite.name, parseRecords(text), end);
}

function notRun(suite: string, why: string): Outcome {
  return {
    suite,
    passed: 0,
    failures: [{ name: `suite ${suite}`, message: `not run: ${why}` }],
    flaky: [],
    skips: [],
    durationMs: 0,
  };
}

async function buildImage(): Promise<Outcome> {
  const end = await run(
    'image',
    [process.execPath, 'dist/src/cli/main.js', 'image', 'build', 'base'],
    IMAGE_BUILD_MS,
  );
  const ok = end.exitCode === 0;
  return {
    suite: 'image',
    passed: ok ? 1 : 0,
    failures: ok ? [] : [{ name: 'image build base', message: withTail(describeEnd(end), end) }],
    flaky: [],
    skips: [],
    durationMs: end.durationMs,
  };
}

/** What ends the suites that run (see `runCommand`) lets no other begin. */
let stoppedBy: NodeJS.Signals | undefined;
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const)
  process.on(signal, () => (stoppedBy = signal));

async function runAll(suites: readonly Suite[]): Promise<Outcome[]> {
  const outcomes: Outcome[] = [];
  const buildFailed = process.env['QMP_AGENT_TEST_BUILD_FAILED'];
  if (buildFailed !== undefined) outcomes.push(notRun('build', buildFailed));
  let image: Promise<Outcome> | undefined;
  const one = async (suite: Suite, label?: string): Promise<void> => {
    if (stoppedBy !== undefined) {
      outcomes.push(notRun(suite.name, `stopped by ${stoppedBy}`));
      return;
    }
    if (suite.needsBuild && buildFailed !== undefined) {
      outcomes.push(notRun(suite.name, 'the build failed'));
      return;
    }
    if (suite.needsImage) {
      const first = image === undefined;
      const built = await (image ??= buildImage());
      if (built.failures.length > 0) {
        if (first) outcomes.push(built);
        outcomes.push(notRun(suite.name, 'the base image could not be built'));
        return;
      }
    }
    outcomes.push(
      Date.now() >= deadlineAt
        ? notRun(suite.name, 'the deadline of the whole run has passed')
        : await runSuite(suite, label),
    );
  };
  for (const suite of suites.filter((some) => some.alone)) await one(suite);
  const rest = suites.filter((some) => !some.alone);
  // Without the lab, which takes longest: one after the other, with lines that need no label.
  const lanes = rest.some(({ name }) => name === LAB) && rest.length > 1 ? 2 : 1;
  const inTurn = async (): Promise<void> => {
    for (let suite = rest.shift(); suite !== undefined; suite = rest.shift())
      await one(suite, lanes > 1 ? suite.name : undefined);
  };
  await Promise.all(Array.from({ length: lanes }, inTurn));
  return outcomes;
}

rmSync(RESULTS, { recursive: true, force: true });
mkdirSync(RESULTS, { recursive: true });
const before = takeStock(temporaryDir);
const outcomes: Outcome[] = [];
try {
  const suites = chooseSuites(process.argv.slice(2), RESULTS);
  outcomes.push(...(await runAll(suites)));
  await reportCoverage(suites, (argv, timeoutMs) => run('coverage', argv, timeoutMs));
  outcomes.push(checkSurvivors(before, { runId, temporaryDir }), ...tooFlaky(outcomes));
} catch (error) {
  outcomes.push({
    suite: 'run',
    passed: 0,
    failures: [{ name: 'scripts/test', message: String(error) }],
    flaky: [],
    skips: [],
    durationMs: 0,
  });
}
rmSync(temporaryDir, { recursive: true, force: true });
console.log(`\ntotal: ${seconds(Date.now() - startedAt)}; logs in ${RESULTS}/`);
// Written in one call and waited for: nothing may follow the closing line, and none of it be lost.
process.stdout.write(`${summaryText(outcomes)}\n`, () => {
  process.exit(totals(outcomes).failed === 0 ? 0 : 1);
});
