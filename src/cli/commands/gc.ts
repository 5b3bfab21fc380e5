/** `qmp-agent gc`. */
import type { Command } from 'commander';
import type { CliContext } from '../context.ts';
import { loadVm } from '../vm-access.ts';

/** Adds `gc`. */
export function registerGc(program: Command, context: CliContext): void {
  program
    .command('gc')
    .description(
      'Remove what dead processes left behind: ephemeral VMs without an owner, stray QEMU processes, sockets and files.',
    )
    .option('--json', 'print a JSON array')
    .action(async () => {
      const Vm = await loadVm();
      const reaped = await Vm.gc({ paths: context.paths, signal: context.signal });
      if (context.json) context.printJson(reaped);
      else for (const { kind, path } of reaped) context.print(`removed ${kind} ${path}`);
    });
}
