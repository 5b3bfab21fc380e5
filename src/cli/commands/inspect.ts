/** `qmp-agent inspect`. */
import type { Command } from 'commander';
import type { CliContext } from '../context.ts';
import { loadVm } from '../vm-access.ts';

/** Adds `inspect`. */
export function registerInspect(program: Command, context: CliContext): void {
  program
    .command('inspect')
    .description('Show everything about VMs as a JSON array, QEMU command line included.')
    .argument('<vm...>', 'id, unique prefix of an id, or name')
    .option('--json', 'errors as JSON too')
    .action(async (names: string[]) => {
      const Vm = await loadVm();
      const found = [];
      for (const name of names) found.push(await Vm.inspect(name, { paths: context.paths }));
      context.print(JSON.stringify(found, undefined, 2));
    });
}
