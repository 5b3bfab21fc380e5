/** From flags and configuration to what the agent is asked to run. */
import type { ExecSpec } from '../../guest-agent/protocol.ts';
import type { CliContext } from './context.ts';

/** Flags of {@link addExecOptions} that are no settings. */
export interface ExecFlags {
  env?: string[];
  envFile?: string[];
  /** False with `--no-stdin`. */
  stdin: boolean;
}

/** The spec of a command in the guest. */
export function execSpec(
  context: CliContext,
  argv: readonly string[],
  env: Readonly<Record<string, string>>,
  flags: ExecFlags,
): ExecSpec {
  const { user, workdir, timeoutMs } = context.config.exec;
  return {
    argv,
    env,
    stdin: flags.stdin,
    // However we end (second Ctrl-C, grace over, SIGKILL): nobody could reach it from here any more.
    onDisconnect: 'kill',
    ...(user === undefined ? {} : { user }),
    ...(workdir === undefined ? {} : { cwd: workdir }),
    ...(timeoutMs === undefined ? {} : { timeoutMs }),
  };
}
