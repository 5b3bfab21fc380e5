/**
 * The suites of `scripts/test`, in the order they begin: cheap ones first. The lab's processor is
 * emulated on one core, and so is that of a guest in the other suites: two of them run at once.
 */
import { join } from 'node:path';

export interface Suite {
  name: string;
  argv: readonly string[];
  timeoutMs: number;
  /** Where its records end up, when not where QMP_AGENT_TEST_RECORDS says. */
  recordsPath?: string;
  needsBuild: boolean;
  needsImage: boolean;
  coverage: boolean;
  /** Uses every core by itself: nothing runs beside it. */
  alone?: boolean;
}

export const LAB = 'lab';

const MINUTE = 60_000;
const LAB_TIMEOUT_MS = 60 * MINUTE;

/**
 * The e2e tests that run in the lab too: those whose outcome KVM, vhost-vsock or QEMU 10 could change. A
 * boot takes a minute there, so the others, which are about files, flags and messages of the host, run
 * only on this machine.
 */
const LAB_E2E = [
  'test/e2e/vm/clones.test.ts',
  'test/e2e/vm/commands.test.ts',
  'test/e2e/vm/death.test.ts',
];

/** The e2e tests are several suites, so that they can be spread over the cores. */
const NETWORK = ['test/e2e/network/'];
const CLI = ['test/e2e/cli/', 'test/e2e/image/'];
const STORAGE = ['fault-walk', 'diff', 'disk-quota', 'template-memory', 'templates'].map(
  (name) => `test/e2e/vm/${name}.test.ts`,
);

/** Command line of one vitest run over `projects`. */
function vitest(projects: readonly string[], extra: readonly string[] = []): string[] {
  return [
    process.execPath,
    'node_modules/vitest/vitest.mjs',
    'run',
    ...projects.flatMap((project) => ['--project', project]),
    '--reporter=default',
    '--reporter=./scripts/suites/reporter.ts',
    ...extra,
  ];
}

/** Some of the e2e tests. The lab takes longest and goes before them where they run beside it. */
function e2e(name: string, which: readonly string[], timeoutMs: number): Suite {
  return {
    ...{ name, argv: ['nice', ...vitest(['e2e'], which)], timeoutMs },
    ...{ needsBuild: true, needsImage: true, coverage: false },
  };
}

function allSuites(resultsDir: string): Suite[] {
  const covered = (name: string): string[] => [
    '--coverage',
    '--coverage.reporter=json',
    `--coverage.reportsDirectory=coverage/${name}`,
    '--reporter=blob',
    `--outputFile.blob=${join(resultsDir, 'blobs', `${name}.json`)}`,
  ];
  const lab = join(resultsDir, 'lab');
  return [
    {
      name: 'unit',
      argv: vitest(['unit'], covered('unit')),
      timeoutMs: 8 * MINUTE,
      needsBuild: false,
      needsImage: false,
      coverage: true,
      alone: true,
    },
    {
      name: LAB,
      argv: [
        'scripts/lab',
        'run',
        '--timeout',
        String(LAB_TIMEOUT_MS / 1000 - 30),
        '--results',
        lab,
        '--env',
        'QMP_AGENT_TEST_RECORDS=/results/records.ndjson',
        '--',
        'node',
        // One process for all files: to load the sources takes a minute there.
        ...vitest(['lab', 'e2e'], ['--no-isolate', 'test/lab/', ...LAB_E2E]).slice(1),
      ],
      timeoutMs: LAB_TIMEOUT_MS,
      recordsPath: join(lab, 'records.ndjson'),
      needsBuild: true,
      needsImage: true,
      coverage: false,
    },
    {
      name: 'style',
      argv: ['nice', ...vitest(['style'])],
      timeoutMs: 8 * MINUTE,
      needsBuild: false,
      needsImage: false,
      coverage: false,
    },
    {
      name: 'integration',
      argv: ['nice', ...vitest(['integration'], covered('integration'))],
      timeoutMs: 30 * MINUTE,
      needsBuild: true,
      needsImage: false,
      coverage: true,
    },
    e2e('e2e', ['--exclude', `{${[...NETWORK, ...CLI, ...STORAGE].join()}}**`], 50 * MINUTE),
    e2e('network', NETWORK, 35 * MINUTE),
    e2e('storage', STORAGE, 20 * MINUTE),
    e2e('cli', CLI, 10 * MINUTE),
  ];
}

/**
 * The suites of that name, or all.
 *
 * @throws Error on a name that no suite has
 */
export function chooseSuites(names: readonly string[], resultsDir: string): Suite[] {
  const suites = allSuites(resultsDir);
  for (const name of names) {
    if (!suites.some((suite) => suite.name === name)) {
      throw new Error(`no suite named ${name}; there are ${suites.map((s) => s.name).join(', ')}`);
    }
  }
  return names.length === 0 ? suites : suites.filter((suite) => names.includes(suite.name));
}
