/** Runs one command in a process group of its own, with a deadline, its output shown and kept. */
import { spawn } from 'node:child_process';
import { createWriteStream } from 'node:fs';
import { StringDecoder } from 'node:string_decoder';
import type { RunEnd } from './records.ts';

/** What is kept of a command's output for the message of a failure. */
const TAIL_CHARS = 4_000;
/** How long a group has to end after SIGTERM. */
const TERM_GRACE_MS = 10_000;

export interface CommandOptions {
  env?: NodeJS.ProcessEnv;
  timeoutMs: number;
  /** The whole output goes into this file. */
  logPath: string;
  /** Before each line that is shown, where several commands run at once. */
  label?: string | undefined;
}

/** Runs `argv`; never rejects, what went wrong is in the result. */
export async function runCommand(argv: readonly string[], o: CommandOptions): Promise<RunEnd> {
  const startedAt = Date.now();
  const log = createWriteStream(o.logPath);
  let tail = '';
  let timedOut = false;
  const child = spawn(argv[0] ?? '', argv.slice(1), {
    env: { ...process.env, ...o.env },
    stdio: ['ignore', 'pipe', 'pipe'],
    // A group of its own, so that a deadline reaches every process that stayed in it.
    detached: true,
  });
  const print = o.label === undefined ? printRaw : labelled(o.label);
  const show = (chunk: Buffer): void => {
    print(chunk);
    log.write(chunk);
    tail = (tail + chunk.toString('utf8')).slice(-TAIL_CHARS);
  };
  child.stdout.on('data', show);
  child.stderr.on('data', show);
  const timers = [
    setTimeout(() => {
      timedOut = true;
      killGroup(child.pid, 'SIGTERM');
    }, o.timeoutMs),
    setTimeout(() => killGroup(child.pid, 'SIGKILL'), o.timeoutMs + TERM_GRACE_MS),
  ];
  const stop = (signal: NodeJS.Signals): void => killGroup(child.pid, signal);
  const signals = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;
  for (const signal of signals) process.on(signal, stop);
  try {
    const [exitCode, signal] = await new Promise<[number | null, string | null]>((resolve) => {
      child.once('error', (error) => {
        show(Buffer.from(`${error.message}\n`));
        resolve([127, null]);
      });
      // `exit`, not `close`: a survivor that holds the pipe must not hold up the whole run.
      child.once('exit', (code, by) => setTimeout(() => resolve([code, by]), 200));
    });
    return {
      exitCode: exitCode ?? undefined,
      signal: signal ?? undefined,
      timedOut,
      durationMs: Date.now() - startedAt,
      tail: tail.trim(),
    };
  } finally {
    for (const timer of timers) clearTimeout(timer);
    for (const signal of signals) process.off(signal, stop);
    child.stdout.destroy();
    child.stderr.destroy();
    await new Promise<void>((resolve) => log.end(resolve));
  }
}

function printRaw(chunk: Buffer): void {
  process.stdout.write(chunk);
}

/** Prints whole lines only: parts of two commands' lines must not meet in one. */
function labelled(label: string): (chunk: Buffer) => void {
  const decoder = new StringDecoder('utf8');
  let rest = '';
  return (chunk) => {
    const lines = (rest + decoder.write(chunk)).split('\n');
    rest = lines.pop() ?? '';
    for (const line of lines) process.stdout.write(`${label} | ${line}\n`);
  };
}

function killGroup(pid: number | undefined, signal: NodeJS.Signals): void {
  if (pid === undefined) return;
  try {
    process.kill(-pid, signal);
  } catch {
    // The group is gone already.
  }
}
