/** Checks of what the agent replies: shapes, ranges, lengths. A guest may send anything. */
import { FrameError, type StartedFrame } from '../../guest-agent/frames.ts';
import type {
  ExecExit,
  ExecInfo,
  GuestStatus,
  PingReply,
  ThawReply,
} from '../../guest-agent/protocol.ts';
import { isRecord } from './request.ts';

const ID = /^[\w-]{1,64}$/;
const WORD = /^[\x21-\x7e]{1,64}$/;
const SIGNAL = /^SIG[A-Z0-9+-]{1,12}$/;
const MAX_PID = 2 ** 22; // PID_MAX_LIMIT of 64-bit Linux

/** @throws FrameError */
export function parseStarted(payload: Buffer): StartedFrame {
  const { id, pid } = record(payload);
  if (!isId(id) || !isInteger(pid, 1, MAX_PID)) {
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
  if (!isWord(agentVersion) || !isWord(node) || !isWord(bootId) || !isInteger(protocol, 0, 1e6)) {
    throw new FrameError('the reply to a ping is not one');
  }
  return { agentVersion, protocol, node, bootId };
}

/** @throws FrameError */
export function parseStatus(value: unknown): GuestStatus {
  const v = isRecord(value) ? value : {};
  const { load } = v;
  if (!Array.isArray(load) || load.length !== 3) throw new FrameError('not a status');
  return {
    uptimeSeconds: numberOf(v['uptimeSeconds']),
    memory: spaceOf(v['memory']),
    load: [numberOf(load[0]), numberOf(load[1]), numberOf(load[2])],
    processes: numberOf(v['processes']),
    disk: spaceOf(v['disk']),
    agentRssBytes: numberOf(v['agentRssBytes']),
    execs: numberOf(v['execs']),
    unixMs: numberOf(v['unixMs']),
  };
}

/** @throws FrameError */
export function parseThaw(value: unknown): ThawReply {
  const { stoodMs } = isRecord(value) ? value : {};
  if (!isNumber(stoodMs) || stoodMs < 0) throw new FrameError('the reply to a thaw is not one');
  return { stoodMs };
}

function spaceOf(value: unknown): { totalBytes: number; availableBytes: number } {
  const { totalBytes, availableBytes } = isRecord(value) ? value : {};
  return { totalBytes: numberOf(totalBytes), availableBytes: numberOf(availableBytes) };
}

function numberOf(value: unknown): number {
  if (!isNumber(value) || value < 0) throw new FrameError('not a status');
  return value;
}

/**
 * Texts in it (command, user, cwd, tag) are the guest's: whoever shows them on a terminal has to take
 * control characters out.
 * @throws FrameError
 */
export function parseList(value: unknown): ExecInfo[] {
  if (!Array.isArray(value)) throw new FrameError('not a list of execs');
  return value.map(parseInfo);
}

function parseInfo(value: unknown): ExecInfo {
  const v = isRecord(value) ? value : {};
  const { id, pid, command, user, cwd, tag, startedAtMs, running, exit } = v;
  if (
    !isId(id) ||
    !isInteger(pid, 1, MAX_PID) ||
    !Array.isArray(command) ||
    !command.every(isText) ||
    !isText(user) ||
    !isText(cwd) ||
    (tag !== undefined && !isText(tag)) ||
    !isNumber(startedAtMs) ||
    typeof running !== 'boolean'
  ) {
    throw new FrameError('not a list of execs');
  }
  return {
    ...{ id, pid, command, user, cwd, startedAtMs, running },
    ...(tag === undefined ? {} : { tag }),
    ...(exit === undefined ? {} : { exit: checkExit(exit) }),
  };
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

function isText(value: unknown): value is string {
  return typeof value === 'string';
}

function isId(value: unknown): value is string {
  return typeof value === 'string' && ID.test(value);
}

/** Versions and the like; they are shown as they are. */
function isWord(value: unknown): value is string {
  return typeof value === 'string' && WORD.test(value);
}
