/** `qmp-agent exec`: a command in a VM that is there already. */
import type { Command } from 'commander';
import { runAttached } from '../attach.ts';
import { addExecOptions } from '../config-flags.ts';
import type { CliContext } from '../context.ts';
import { guestEnvironment } from '../environment.ts';
import { execSpec, type ExecFlags } from '../exec-spec.ts';
import { connectVm } from '../vm-access.ts';

/** Adds `exec`. */
export function registerExec(program: Command, context: CliContext): void {
  const command = program
    .command('exec')
    .description('Run a command in a running VM. Stdin, stdout, stderr and exit code pass through.')
    .usage('[options] VM [--] COMMAND [ARG...]')
    .argument('<vm>', 'id, unique prefix of an id, or name')
    .argument('<command...>', 'program and arguments, run as they are, without a shell')
    .passThroughOptions()
    .action((vm: string, words: string[], flags: ExecFlags) => {
      // `exec VM -- CMD`: the operand before `--` ended the options, so the dashes are still there.
      const argv = words[0] === '--' ? words.slice(1) : words;
      if (argv.length === 0) command.error("error: missing required argument 'command'");
      return exec(context, vm, argv, flags);
    });
  addExecOptions(command);
}

async function exec(
  context: CliContext,
  idOrName: string,
  argv: readonly string[],
  flags: ExecFlags,
): Promise<void> {
  const env = await guestEnvironment(flags, context.env);
  const vm = await connectVm(context, idOrName);
  try {
    const result = await runAttached(vm, execSpec(context, argv, env, flags), context);
    context.exitCode = result.exitCode;
    // A second Ctrl-C ends what this call started, not a VM that others may be using.
  } finally {
    await vm.close();
  }
}
