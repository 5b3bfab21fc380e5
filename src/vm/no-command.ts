/** A command that is meant, and is no more. */
import { GuestRequestError, NotFoundError } from '../errors.ts';

/** The agent's word for an exec that it does not know, or forgot. */
const UNKNOWN_EXEC = 'ENOEXEC_ID';

/** Whether the agent knows no such exec: it ended long ago, or the VM was put back to before it began. */
export function isUnknownExec(error: unknown): boolean {
  return error instanceof GuestRequestError && error.guestCode === UNKNOWN_EXEC;
}

/** No command with this pid runs, or none that is the one that was meant. */
export function noCommand(vmId: string, pid: number): NotFoundError {
  return new NotFoundError(`VM ${vmId} has no command ${pid} that runs`, {
    kind: 'exec',
    query: String(pid),
    vmId,
    hint: '`vm.commands.list()` shows those that run.',
  });
}
