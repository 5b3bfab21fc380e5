/** `qmp-agent create`: a VM that stays. */
import type { Command } from 'commander';
import { refusePcap } from '../capture-flags.ts';
import { addNameOption, addVmOptions } from '../config-flags.ts';
import type { CliContext } from '../context.ts';
import { addReachOptions, type ReachFlags, reachOf } from '../egress-flags.ts';
import { startSpinner } from '../progress.ts';
import { loadVm, vmOptions } from '../vm-access.ts';

interface CreateFlags extends ReachFlags {
  name?: string;
}

/** Adds `create`. */
export function registerCreate(program: Command, context: CliContext): void {
  const command = program
    .command('create')
    .description('Create a VM, start it and wait until it is ready. Prints its id.')
    .option('--json', 'print everything about it as JSON')
    .action((flags: CreateFlags) => create(context, flags));
  refusePcap(addReachOptions(addNameOption(addVmOptions(command))));
}

async function create(context: CliContext, flags: CreateFlags): Promise<void> {
  const Vm = await loadVm();
  const spinner = startSpinner(context, 'Starting the VM');
  const vm = await Vm.create({
    ...vmOptions(context, flags.name),
    ...reachOf(flags),
    persistent: true,
  }).finally(() => spinner.stop());
  try {
    if (context.json) context.printJson(await vm.info());
    else context.print(vm.id);
  } finally {
    await vm.close();
  }
}
