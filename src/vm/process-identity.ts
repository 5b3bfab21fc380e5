/**
 * Which process is meant, so that a pid that was given to another process since is not taken for it:
 * pid, start time and the boot in which both count.
 */
import { readFileSync } from 'node:fs';
import { readdir, readFile } from 'node:fs/promises';

/** A process, unmistakably. */
export interface ProcessIdentity {
  readonly pid: number;
  /** Clock ticks since boot at which it started: field 22 of /proc/PID/stat, see proc(5). */
  readonly startTicks: number;
  /** /proc/sys/kernel/random/boot_id. */
  readonly bootId: string;
}

/** Whether this, read from a file, names a process. */
export function isIdentity(value: unknown): value is ProcessIdentity {
  const { pid, startTicks, bootId } = (value ?? {}) as Partial<Record<string, unknown>>;
  return (
    Number.isInteger(pid) &&
    (pid as number) > 0 && // 0 and below are groups to kill(2)
    typeof startTicks === 'number' &&
    typeof bootId === 'string'
  );
}

/** Fields of /proc/PID/stat that follow the command name, counted from 3 as proc(5) does. */
const STATE_FIELD = 3;
const THREADS_FIELD = 20;
const START_TICKS_FIELD = 22;

let bootId: string | undefined;

function currentBootId(): string {
  bootId ??= readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();
  return bootId;
}

/**
 * Start time of a process that runs; undefined for one that is gone or a zombie. A zombie with other threads
 * than its first is no dead one yet: they hold its files, and the locks on those, until they have ended, too.
 */
export function parseStat(stat: string): { startTicks: number } | undefined {
  // The command name stands in parentheses and may itself hold blanks and parentheses.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  const state = fields[0];
  const threads = Number(fields[THREADS_FIELD - STATE_FIELD]);
  const startTicks = Number(fields[START_TICKS_FIELD - STATE_FIELD]);
  const isDead = state === undefined || state === 'X' || (state === 'Z' && threads <= 1);
  return isDead || !Number.isFinite(startTicks) ? undefined : { startTicks };
}

/** The process that has this pid now; undefined where there is none, or only a zombie. */
export function identify(pid: number): ProcessIdentity | undefined {
  try {
    const parsed = parseStat(readFileSync(`/proc/${pid}/stat`, 'utf8'));
    return parsed && { pid, startTicks: parsed.startTicks, bootId: currentBootId() };
  } catch {
    return undefined; // gone between one look and the next: that is the answer
  }
}

/** This process. */
export function ownIdentity(): ProcessIdentity {
  const own = identify(process.pid);
  if (own === undefined) throw new Error('/proc does not show this process: is /proc mounted?');
  return own;
}

/** Whether exactly this process still runs. A zombie does not. */
export function isAlive(identity: ProcessIdentity): boolean {
  const now = identify(identity.pid);
  return now?.startTicks === identity.startTicks && now.bootId === identity.bootId;
}

/**
 * Sends a signal to exactly this process. The look and the signal are two steps, but a pid is not
 * given out again within microseconds: Linux counts them upwards.
 * @returns whether it was there to be signalled
 */
export function signalProcess(identity: ProcessIdentity, signal: NodeJS.Signals): boolean {
  if (!isAlive(identity)) return false;
  try {
    process.kill(identity.pid, signal);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ESRCH') return false;
    throw error;
  }
}

/** Processes that have this exact word among their arguments. Reads all of /proc: not for hot paths. */
export async function findByArgument(
  matches: (argv: readonly string[]) => boolean,
): Promise<ProcessIdentity[]> {
  const found: ProcessIdentity[] = [];
  for (const entry of await readdir('/proc')) {
    if (!/^\d+$/.test(entry)) continue;
    let cmdline: string;
    try {
      cmdline = await readFile(`/proc/${entry}/cmdline`, 'utf8');
    } catch {
      continue; // ended meanwhile, or not ours to read
    }
    if (!matches(cmdline.split('\0'))) continue;
    const identity = identify(Number(entry));
    if (identity !== undefined) found.push(identity);
  }
  return found;
}
