/** `qmp-agent list`. */
import type { Command } from 'commander';
import { formatAge } from '../../config/units.ts';
import type { VmInfo } from '../../vm/api.ts';
import type { CliContext } from '../context.ts';
import { loadVm } from '../vm-access.ts';

interface ListFlags {
  all?: boolean;
  quiet?: boolean;
}

/** Adds `list`. */
export function registerList(program: Command, context: CliContext): void {
  program
    .command('list')
    .alias('ls')
    .description('List VMs that run or are suspended, oldest first.')
    .option('-a, --all', 'stopped and broken ones too')
    .option('-q, --quiet', 'print ids only')
    .option('--json', 'print a JSON array')
    .action((flags: ListFlags) => list(context, flags));
}

async function list(context: CliContext, flags: ListFlags): Promise<void> {
  const Vm = await loadVm();
  const vms = (await Vm.list({ paths: context.paths })).filter(
    (vm) => flags.all === true || !['stopped', 'removed', 'broken'].includes(vm.state),
  );
  if (context.json) {
    context.printJson(vms);
  } else if (flags.quiet === true) {
    for (const vm of vms) context.print(vm.id);
  } else {
    const { printTable } = await import('../table.ts');
    printTable(
      context,
      ['ID', 'NAME', 'IMAGE', 'STATE', 'VCPUS', 'MEMORY', 'ACCEL', 'CREATED'],
      vms.map((vm) => [
        vm.id,
        vm.name,
        vm.image,
        stateOf(vm),
        vm.vcpus,
        `${vm.memoryMib} MiB`,
        vm.accel,
        formatAge(vm.createdAt),
      ]),
    );
  }
}

function stateOf(vm: VmInfo): string {
  const kind = vm.persistent ? vm.state : `${vm.state} (ephemeral)`;
  return vm.stateDetail === undefined ? kind : `${kind}: ${vm.stateDetail}`;
}
