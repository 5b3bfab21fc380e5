/** `qmp-agent clone`: a VM that stays, from a template. */
import type { Command } from 'commander';
import { refusePcap } from '../capture-flags.ts';
import { addNameOption, diskQuotaOption, networkOption } from '../config-flags.ts';
import type { CliContext } from '../context.ts';
import { addReachOptions, type ReachFlags, reachOf } from '../egress-flags.ts';
import { cloneOptions, loadVm } from '../vm-access.ts';

interface CloneFlags extends ReachFlags {
  name?: string;
  hostname?: string;
  paused?: boolean;
}

/** Adds `clone`. */
export function registerClone(program: Command, context: CliContext): void {
  const command = program
    .command('clone')
    .description('Clone a template: a VM that goes on from where it stands. Prints its id.')
    .argument('<template>', 'name of the template')
    .option('--hostname <name>', 'host name in the guest (default: the name, else the id)')
    .option('--paused', 'keep it ready: warm, and paused until `qmp-agent resume`')
    .option('--json', 'print everything about it as JSON')
    .action((template: string, flags: CloneFlags) => clone(context, template, flags));
  command.addOption(diskQuotaOption()).addOption(networkOption('the template’s'));
  refusePcap(addReachOptions(addNameOption(command)));
}

async function clone(context: CliContext, template: string, flags: CloneFlags): Promise<void> {
  const Vm = await loadVm();
  const { name, hostname, paused } = flags;
  const options = {
    ...cloneOptions(context, name),
    hostname,
    paused,
    ...reachOf(flags),
    persistent: true,
  };
  const vm = await Vm.fromTemplate(template, options);
  try {
    if (context.json) context.printJson(await vm.info());
    else context.print(vm.id);
  } finally {
    await vm.close();
  }
}
