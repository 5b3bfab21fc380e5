/** `qmp-agent snapshot …`. */
import type { Command } from 'commander';
import { formatAge, formatBytes } from '../../config/units.ts';
import type { CliContext } from '../context.ts';
import { withVm } from '../vm-access.ts';

/** Adds `snapshot` with its subcommands. */
export function registerSnapshot(program: Command, context: CliContext): void {
  const snapshot = program
    .command('snapshot')
    .description('Snapshots of running VMs: memory, devices and disk at one instant.');
  const add = (name: string, description: string) =>
    snapshot
      .command(name)
      .description(description)
      .argument('<vm>', 'id, unique prefix of an id, or name')
      .option('--json', 'print JSON');
  add('create', 'Take a snapshot; prints its name.')
    .argument('[name]', 'name of the snapshot (default: s and the time)')
    .option('-d, --description <text>', 'what it is for')
    .action((vm: string, name: string | undefined, flags: { description?: string }) =>
      create(context, vm, name, flags.description),
    );
  add('restore', 'Put a VM back to a snapshot.')
    .argument('<name>', 'name of the snapshot')
    .action((vm: string, name: string) => restore(context, vm, name));
  add('list', 'List the snapshots of a VM, oldest first.')
    .alias('ls')
    .option('-q, --quiet', 'print names only')
    .action((vm: string, flags: { quiet?: boolean }) => list(context, vm, flags.quiet === true));
  add('delete', 'Delete a snapshot.')
    .alias('rm')
    .argument('<name>', 'name of the snapshot')
    .action((vm: string, name: string) => remove(context, vm, name));
}

async function create(
  context: CliContext,
  idOrName: string,
  name: string | undefined,
  description: string | undefined,
): Promise<void> {
  const info = await withVm(context, idOrName, (vm) =>
    vm.snapshots.create(name, { description, signal: context.signal }),
  );
  if (context.json) context.printJson(info);
  else context.print(info.name);
}

async function restore(context: CliContext, idOrName: string, name: string): Promise<void> {
  await withVm(context, idOrName, (vm) => vm.snapshots.restore(name, { signal: context.signal }));
  report(context, idOrName, name);
}

async function remove(context: CliContext, idOrName: string, name: string): Promise<void> {
  await withVm(context, idOrName, (vm) => vm.snapshots.delete(name, { signal: context.signal }));
  report(context, idOrName, name);
}

async function list(context: CliContext, idOrName: string, quiet: boolean): Promise<void> {
  const snapshots = await withVm(context, idOrName, (vm) =>
    vm.snapshots.list({ signal: context.signal }),
  );
  if (context.json) {
    context.printJson(snapshots);
  } else if (quiet) {
    for (const { name } of snapshots) context.print(name);
  } else {
    const { printTable } = await import('../table.ts');
    printTable(
      context,
      ['NAME', 'CREATED', 'SIZE', 'DESCRIPTION'],
      snapshots.map((snapshot) => [
        snapshot.name,
        formatAge(snapshot.createdAt),
        formatBytes(snapshot.sizeBytes),
        snapshot.description,
      ]),
    );
  }
}

function report(context: CliContext, vm: string, name: string): void {
  if (context.json) context.printJson({ vm, name, ok: true });
  else context.print(name);
}
