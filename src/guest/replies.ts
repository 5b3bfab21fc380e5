/** Checks of what the agent replies: shapes, ranges, lengths. A guest may send anything. */
import { FrameError, type StartedFrame } from '../../guest-agent/frames.ts';
import type { ExecExit, ExecInfo, GuestStatus, PingReply } from '../../guest-agent/protocol.ts';
import { isRecord } from './request.ts';

const ID = /^[\w-]{1,64}$/;
const SIGNAL = /^SIG[A-Z0-9+-]{1,12}$/;
const MAX_PID = 2 ** 22; // PID_MAX_LIMIT of 64-bit Linux

/** @throws FrameError */
export function parseStarted(payload: Buffer): StartedFrame {
  const { id, pid } = record(payload);
  if (typeof id !== 'string' || !ID.test(id) || !isInteger(pid, 1, MAX_PID)) {
    throw new FrameError('the first frame is not that of a started exec');
  }
  return { id, pid };
}

/** @throws FrameError */
export function parseExit(payload: Buffer): ExecExit {
  return checkExit(record(payload));
}

function checkExit(value: unknown): ExecExit {
  if (!isRecord(value)) throw new FrameError('not the end of an exec');
  const { exitCode, signal, durationMs, timedOut } = value;
  const byCode = isInteger(exitCode, 0, 255) && signal === undefined;
  const bySignal = typeof signal === 'string' && SIGNAL.test(signal) && exitCode === undefined;
  if ((!byCode && !bySignal) || !isNumber(durationMs) || typeof timedOut !== 'boolean') {
    throw new FrameError('not the end of an exec');
  }
  return { ...(byCode ? { exitCode } : { signal: signal as string }), durationMs, timedOut };
}

/** @throws FrameError */
export function parsePing(value: unknown): PingReply {
  const { agentVersion, protocol, node, bootId } = isRecord(value) ? value : {};
  const texts = [agentVersion, node, bootId];
  if (!texts.every((t) => isText(t, 64)) || !isInteger(protocol, 0, 1e6)) {
    throw new FrameError('the reply to a ping is not one');
  }
  return value as PingReply;
}

/** @throws FrameError */
export function parseStatus(value: unknown): GuestStatus {
  const v = isRecord(value) ? value : {};
  const { memory, disk, load } = v;
  const numbers = [v['uptimeSeconds'], v['processes'], v['agentRssBytes'], v['execs'], v['unixMs']];
  const pairs = [memory, disk].flatMap((pair) =>
    isRecord(pair) ? [pair['totalBytes'], pair['availableBytes']] : [undefined],
  );
  const loads: unknown[] = Array.isArray(load) && load.length === 3 ? load : [undefined];
  if (![...numbers, ...pairs, ...loads].every(isNumber)) throw new FrameError('not a status');
  return value as GuestStatus;
}

/** @throws FrameError */
export function parseList(value: unknown): ExecInfo[] {
  if (!Array.isArray(value)) throw new FrameError('not a list of execs');
  for (const item of value as unknown[]) {
    const v = isRecord(item) ? item : {};
    const command: unknown = v['command'];
    const fits =
      typeof v['id'] === 'string' &&
      ID.test(v['id']) &&
      isInteger(v['pid'], 1, MAX_PID) &&
      Array.isArray(command) &&
      command.every((part) => typeof part === 'string') &&
      isText(v['user'], 4096) &&
      isText(v['cwd'], 4096) &&
      (v['tag'] === undefined || typeof v['tag'] === 'string') &&
      isNumber(v['startedAtMs']) &&
      typeof v['running'] === 'boolean';
    if (!fits) throw new FrameError('not a list of execs');
    if (v['exit'] !== undefined) checkExit(v['exit']);
  }
  return value as ExecInfo[];
}

function record(payload: Buffer): Record<string, unknown> {
  let value: unknown;
  try {
    value = JSON.parse(payload.toString('utf8'));
  } catch {
    throw new FrameError('a frame that should be JSON is not');
  }
  if (!isRecord(value)) throw new FrameError('a frame that should be an object is not');
  return value;
}

function isNumber(value: unknown): value is number {
  return typeof value === 'number' && Number.isFinite(value);
}

function isInteger(value: unknown, min: number, max: number): value is number {
  return Number.isInteger(value) && (value as number) >= min && (value as number) <= max;
}

function isText(value: unknown, maxChars: number): value is string {
  return typeof value === 'string' && value.length <= maxChars;
}
