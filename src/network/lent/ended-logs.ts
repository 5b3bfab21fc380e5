/**
 * Logs of loans that have ended, kept until their user has copied his, within bounds. Beside each is a note that says whose
 * it is; a log that has neither that nor an entry is nobody's.
 */
import { readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { rotatedLogPath } from '../traffic/log-file.ts';

/** Of one user. They are in memory (/run). */
export const MAX_ENDED = 64;
export const MAX_ENDED_BYTES = 16 * 2 ** 20;
/** A user may come back to his VM after a weekend. */
export const MAX_ENDED_MS = 7 * 86_400_000;

const NOTE = /^([0-9a-f]+)\.ended$/;
const FILE = /^([0-9a-f]+)\.(?:ended|log|log\.1)$/;

/** One of them. */
export interface EndedLoan {
  readonly id: string;
  readonly uid: number;
  /** Of its log. */
  readonly bytes: number;
  /** Since the epoch. */
  readonly endedAtMs: number;
}

/** Where the log of a loan is. */
export function loanLogPath(dir: string, id: string): string {
  return join(dir, `${id}.log`);
}

/** Has its log kept, where there is any. */
export async function noteEnd(dir: string, id: string, uid: number): Promise<void> {
  if ((await logBytes(dir, id)) > 0)
    await writeFile(notePath(dir, id), String(uid), { mode: 0o600 });
}

/** Whose log is kept; undefined: none of this loan is. */
export async function userOfEnded(dir: string, id: string): Promise<number | undefined> {
  const text = await readFile(notePath(dir, id), 'utf8').catch(() => '');
  return /^\d+$/.test(text) ? Number(text) : undefined;
}

/** Nobody needs it any more. The note is the last to go. */
export async function removeEnded(dir: string, id: string): Promise<void> {
  const log = loanLogPath(dir, id);
  for (const path of [log, rotatedLogPath(log), notePath(dir, id)]) await rm(path, { force: true });
}

/**
 * Removes what is beyond the bounds, and what is nobody's.
 * @param o.lent ids of the loans that go on
 * @param o.users who has taps
 */
export async function sweepLogs(
  dir: string,
  o: { lent: readonly string[]; users: ReadonlySet<number> },
): Promise<void> {
  const names = await readdir(dir);
  const notes = names.flatMap((name) => NOTE.exec(name)?.[1] ?? []);
  const found = await Promise.all(notes.map((id) => readEnded(dir, id)));
  const ended = found.filter((one) => one !== undefined);
  const gone = beyondBounds(ended, { nowMs: Date.now(), users: o.users });
  const kept = ended.map(({ id }) => id).filter((id) => !gone.includes(id));
  for (const id of new Set(names.flatMap((name) => FILE.exec(name)?.[1] ?? [])))
    if (!o.lent.includes(id) && !kept.includes(id)) await removeEnded(dir, id);
}

/** Ids of those that go: of each user the oldest, and all of who has no taps any more. Pure. */
export function beyondBounds(
  ended: readonly EndedLoan[],
  o: { nowMs: number; users: ReadonlySet<number> },
): string[] {
  const kept = new Map<number, { count: number; bytes: number }>();
  const latestFirst = [...ended].sort((a, b) => b.endedAtMs - a.endedAtMs);
  return latestFirst.flatMap(({ id, uid, bytes, endedAtMs }) => {
    const before = kept.get(uid) ?? { count: 0, bytes: 0 };
    const after = { count: before.count + 1, bytes: before.bytes + bytes };
    const isOver = after.count > MAX_ENDED || after.bytes > MAX_ENDED_BYTES;
    if (isOver || o.nowMs - endedAtMs > MAX_ENDED_MS || !o.users.has(uid)) return [id];
    kept.set(uid, after);
    return [];
  });
}

async function readEnded(dir: string, id: string): Promise<EndedLoan | undefined> {
  const uid = await userOfEnded(dir, id);
  const facts = await stat(notePath(dir, id)).catch(() => undefined);
  if (uid === undefined || facts === undefined) return undefined;
  return { id, uid, bytes: await logBytes(dir, id), endedAtMs: facts.mtimeMs };
}

async function logBytes(dir: string, id: string): Promise<number> {
  const log = loanLogPath(dir, id);
  const sizes = [log, rotatedLogPath(log)].map((path) =>
    stat(path).then(
      ({ size }) => size,
      () => 0,
    ),
  );
  return (await Promise.all(sizes)).reduce((sum, size) => sum + size, 0);
}

function notePath(dir: string, id: string): string {
  return join(dir, `${id}.ended`);
}
