/** `qmp-agent fork`: VMs that stay, from one that runs and goes on. */
import type { Command } from 'commander';
import { MAX_CHILDREN } from '../../vm/fork/limits.ts';
import { collect, wholeNumberTo } from '../config-flags.ts';
import type { CliContext } from '../context.ts';
import { startSpinner } from '../progress.ts';
import { connectVm } from '../vm-access.ts';

interface ForkFlags {
  count?: number;
  name?: string[];
}

const EPILOG = `
Examples:
  qmp-agent fork work --count 4
  qmp-agent fork work --name left --name right`;

/** Adds `fork`. */
export function registerFork(program: Command, context: CliContext): void {
  program
    .command('fork')
    .description('Fork a running VM: new VMs that go on from where it is. Prints their ids.')
    .argument('<vm>', 'id, unique prefix of an id, or name')
    .option(
      '--count <n>',
      'how many (default: one, or one for each name)',
      wholeNumberTo(MAX_CHILDREN),
    )
    .option('--name <name>', 'name of a child; give it once for each', collect)
    .option('--json', 'print everything about them as a JSON array')
    .addHelpText('after', EPILOG)
    .action((vm: string, flags: ForkFlags) => fork(context, vm, flags));
}

async function fork(context: CliContext, name: string, flags: ForkFlags): Promise<void> {
  const vm = await connectVm(context, name);
  try {
    const spinner = startSpinner(context, 'Forking the VM');
    const { signal, config } = context;
    const children = await vm
      .fork({
        ...{ count: flags.count, names: flags.name, persistent: true },
        ...{ signal, timeoutMs: config.vm.readyTimeoutMs },
      })
      .finally(() => spinner.stop());
    try {
      if (context.json) context.printJson(await Promise.all(children.map((child) => child.info())));
      else for (const { id } of children) context.print(id);
    } finally {
      for (const child of children) await child.close();
    }
  } finally {
    await vm.close();
  }
}
