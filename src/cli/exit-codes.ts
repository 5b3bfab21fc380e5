/** Exit codes, in one place. As docker and `timeout(1)` have them. */
import { constants } from 'node:os';

export const EXIT = {
  ok: 0,
  /** A command of qmp-agent failed. */
  failure: 1,
  /** Unknown command or option, missing argument. */
  usage: 2,
  /** `run` and `exec`: the command ran longer than `--timeout`. */
  timedOut: 124,
  /** `run` and `exec`: qmp-agent itself failed, so there is no exit code to pass on. */
  ownFailure: 125,
  /** `run` and `exec`: the command was found and cannot be invoked. */
  cannotInvoke: 126,
  /** `run` and `exec`: no such command in the guest. */
  notFound: 127,
} as const;

/** 128 + the signal's number, as shells report a process that a signal ended. */
export function signalExitCode(signal: string): number {
  const number = (constants.signals as Readonly<Partial<Record<string, number>>>)[signal];
  return number === undefined ? EXIT.failure : 128 + number;
}
