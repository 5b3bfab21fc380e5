/** Looks for what a test run left behind on the host: processes, taps, namespaces, rules, mounts, files. */
import { execFileSync } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { resolvePaths } from '../../src/config/paths.ts';
import type { Outcome } from './records.ts';

/** Environment variable that marks every process of a run, wherever it was moved to. */
export const RUN_MARKER = 'QMP_AGENT_TEST_RUN';

/** What there is on the host, by kind; each entry names one thing. */
export type HostState = Record<string, Set<string>>;

/** Takes stock; `temporaryDir` is the run's own. Tools that are not there contribute nothing. */
export function takeStock(temporaryDir: string): HostState {
  const { dataDir, runtimeDir } = resolvePaths();
  return {
    'QEMU process': new Set(qemuProcesses()),
    'network interface': new Set(
      linesOf('ip', ['-o', 'link']).map((line) => line.split(':')[1]!.trim()),
    ),
    'network namespace': new Set(entries('/run/netns')),
    'nftables table': new Set(linesOf('nft', ['list', 'tables'])),
    mount: new Set(mounts()),
    'VM on disk': new Set(entries(join(dataDir, 'vms'))),
    'file in the runtime directory': new Set(entries(runtimeDir)),
    'temporary file': new Set(
      entries(temporaryDir).filter((path) => basename(path).startsWith('qmp-agent')),
    ),
  };
}

/** The names in `after` that were not in `before`. */
export function leftovers(before: HostState, after: HostState): string[] {
  return Object.entries(after).flatMap(([kind, names]) =>
    [...names].filter((name) => !before[kind]?.has(name)).map((name) => `${kind}: ${name}`),
  );
}

/** Processes whose environment carries this run's marker. */
export function markedProcesses(runId: string): { pid: number; command: string }[] {
  return pids()
    .filter(
      (pid) => pid !== process.pid && read(pid, 'environ').includes(`${RUN_MARKER}=${runId}\0`),
    )
    .map((pid) => ({ pid, command: commandLine(pid) }));
}

/**
 * Compares the host with what it was, ends the processes that this run left, and counts each find
 * as a failure.
 */
export function checkSurvivors(
  before: HostState,
  o: { runId: string; temporaryDir: string },
): Outcome {
  const startedAt = Date.now();
  const found = leftovers(before, takeStock(o.temporaryDir));
  for (const { pid, command } of markedProcesses(o.runId)) {
    found.push(`process ${pid}: ${command}`);
    try {
      process.kill(pid, 'SIGKILL');
    } catch {
      // It ended by itself in between.
    }
  }
  return {
    suite: 'survivors',
    passed: found.length === 0 ? 1 : 0,
    failures: found.map((name) => ({ name, message: 'left behind by the tests' })),
    flaky: [],
    skips: [],
    durationMs: Date.now() - startedAt,
  };
}

function pids(): number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map(Number);
}

function read(pid: number, file: string): string {
  try {
    return readFileSync(`/proc/${pid}/${file}`, 'latin1');
  } catch {
    return ''; // gone, or another user's
  }
}

function commandLine(pid: number): string {
  return read(pid, 'cmdline').split('\0').join(' ').trim().slice(0, 200);
}

/**
 * QEMUs that nobody waits for. One with a living parent belongs to that parent: to a developer's own
 * VM, or to a process of this run, which its marker finds.
 */
function qemuProcesses(): string[] {
  return pids()
    .filter((pid) => read(pid, 'comm').startsWith('qemu-system') && parentOf(pid) === 1)
    .map((pid) => `${pid} ${commandLine(pid)}`);
}

function parentOf(pid: number): number {
  return Number(/^PPid:\t(\d+)$/m.exec(read(pid, 'status'))?.[1]);
}

function mounts(): string[] {
  return readFileSync('/proc/self/mounts', 'utf8')
    .split('\n')
    .map((line) => line.split(' ')[1] ?? '')
    .filter((path) => path !== '');
}

function entries(dir: string): string[] {
  try {
    return readdirSync(dir).map((name) => join(dir, name));
  } catch {
    return [];
  }
}

function linesOf(command: string, args: string[]): string[] {
  try {
    return execFileSync(command, args, {
      encoding: 'utf8',
      timeout: 10_000,
      stdio: ['ignore', 'pipe', 'ignore'],
    })
      .split('\n')
      .filter((line) => line !== '');
  } catch {
    return [];
  }
}
