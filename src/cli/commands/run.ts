/** `qmp-agent run`: a VM for one command. */
import type { Command } from 'commander';
import { ConfigError } from '../../errors.ts';
import type { VmInstance } from '../../vm/api.ts';
import { runAttached } from '../attach.ts';
import { addPcapOptions, pcapFlags, type PcapFlags } from '../capture-flags.ts';
import { addExecOptions, addNameOption, addVmOptions, collectFlags } from '../config-flags.ts';
import type { CliContext } from '../context.ts';
import { addReachOptions, type ReachFlags, reachOf } from '../egress-flags.ts';
import { guestEnvironment } from '../environment.ts';
import { execSpec, type ExecFlags } from '../exec-spec.ts';
import { startSpinner } from '../progress.ts';
import { cloneOptions, loadVm, vmOptions } from '../vm-access.ts';

interface RunFlags extends ExecFlags, ReachFlags, PcapFlags {
  name?: string;
  template?: string;
  keep?: boolean;
}

const EPILOG = `
The command's stdin, stdout and stderr are those of qmp-agent, and its exit code becomes the exit code.
Ctrl-C reaches the command; a second one ends the VM at once.

Examples:
  qmp-agent run -- uname -a
  qmp-agent run --env TOKEN --timeout 5m -- bash -c 'git clone "$REPO" && cd * && npm test'
  qmp-agent run --template plain -- uname -a
  tar -c . | qmp-agent run -- tar -t`;

/** Adds `run`. */
export function registerRun(program: Command, context: CliContext): void {
  const command = program
    .command('run')
    .description('Run a command in a new VM. The VM and its disk are gone when it ends.')
    .usage('[options] [--] COMMAND [ARG...]')
    .argument('<command...>', 'program and arguments, run as they are, without a shell')
    .passThroughOptions()
    .option('--template <name>', 'clone this template instead of booting an image')
    .option('--keep', 'leave the VM running afterwards')
    .addHelpText('after', EPILOG)
    .action((argv: string[], flags: RunFlags) => {
      if (flags.template !== undefined) refuseMachineFlags(command);
      return run(context, argv, flags);
    });
  addPcapOptions(addReachOptions(addExecOptions(addNameOption(addVmOptions(command)))));
}

/** Settings that a clone may have of its own. */
const CLONES_OWN: readonly string[] = ['diskQuotaMib', 'network'];

/** A flag without effect is worse than an error. @throws ConfigError */
function refuseMachineFlags(command: Command): void {
  const given = collectFlags(command).find(
    ({ path: [section, key] }) => section === 'vm' && !CLONES_OWN.includes(key),
  );
  if (given === undefined) return;
  throw new ConfigError(`${given.flag} and --template exclude each other`, {
    field: given.flag,
    value: given.value,
    hint: 'A clone is the machine that its template is: leave one of them out, or create another template.',
  });
}

async function run(context: CliContext, argv: readonly string[], flags: RunFlags): Promise<void> {
  const env = await guestEnvironment(flags, context.env);
  const spinner = startSpinner(context, 'Starting the VM');
  const vm = await startVm(context, flags).finally(() => spinner.stop());
  try {
    const result = await runAttached(vm, execSpec(context, argv, env, flags), context);
    context.exitCode = result.exitCode;
    if (result.killVm) await vm.kill();
  } finally {
    await vm.close();
    if (flags.keep === true) {
      context.note(
        `qmp-agent: kept ${flags.name ?? vm.id}: see qmp-agent exec, and qmp-agent remove --force`,
      );
    }
  }
}

async function startVm(context: CliContext, flags: RunFlags): Promise<VmInstance> {
  const { name, template, keep: persistent = false } = flags;
  const Vm = await loadVm();
  const reach = { ...reachOf(flags), pcap: pcapFlags(flags) };
  return template === undefined
    ? Vm.create({ ...vmOptions(context, name), ...reach, persistent })
    : Vm.fromTemplate(template, { ...cloneOptions(context, name), ...reach, persistent });
}
