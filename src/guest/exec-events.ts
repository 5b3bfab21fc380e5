/** Announces execs on the event stream. */
import type { ExecSpec } from '../../guest-agent/protocol.ts';
import { events } from '../events.ts';
import type { GuestExec } from './exec.ts';

/** Longest command line that an event carries, characters. */
const COMMAND_CHARS = 1_000;
/** Who runs it where the spec does not say; the agent has the last word. */
const DEFAULT_USER = 'agent';

/** What an announcement needs besides the exec's own face. */
export interface AnnouncedExec extends GuestExec {
  readonly stdoutBytes: number;
  readonly stderrBytes: number;
  /** We killed it. */
  readonly killed: boolean;
}

/** Announces that an exec runs, and later its end. Environment and stdin are never told. */
export function announceExec(vmId: string, spec: ExecSpec, exec: AnnouncedExec): void {
  const command = (spec.argv?.join(' ') ?? spec.shell ?? '').slice(0, COMMAND_CHARS);
  const { id: execId, pid } = exec;
  events.emit('exec.started', { vmId, execId, pid, command, user: spec.user ?? DEFAULT_USER });
  exec.exit.then(
    ({ exitCode, signal, durationMs, timedOut }) => {
      const { stdoutBytes, stderrBytes, killed } = exec;
      events.emit('exec.finished', {
        vmId,
        execId,
        exitCode,
        signal,
        durationMs,
        timedOut,
        isCanceled: killed && exitCode === undefined,
        stdoutBytes,
        stderrBytes,
      });
    },
    () => undefined, // the session's end tells of it
  );
}
