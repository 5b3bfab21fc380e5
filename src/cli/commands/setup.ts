/** `qmp-agent setup …`: what has to be done to a host once. */
import type { Command } from 'commander';
import { setUpNetwork, undoNetworkSetup } from '../../network/index.ts';
import { ConfigOption } from '../config-flags.ts';
import type { CliContext } from '../context.ts';

/** Adds `setup` with its subcommands. */
export function registerSetup(program: Command, context: CliContext): void {
  program
    .command('setup')
    .description('Set up this host, once.')
    .command('network')
    .description(
      'Have it forward packets for VMs, and make the tables for their rules. Nothing else is touched; done twice, the second does nothing.',
    )
    .option('--undo', 'take that back')
    .addOption(
      new ConfigOption(
        '--pool <cidr>',
        'private network that VMs’ addresses are from, /15 to /29 (default: as before, else 10.210.0.0/16)',
        ['network', 'pool'],
      ).conflicts('undo'),
    )
    .option('--json', 'print JSON')
    .action((flags: { undo?: boolean }) => network(context, flags.undo === true));
}

async function network(context: CliContext, isUndo: boolean): Promise<void> {
  const { signal, config } = context;
  const { pool } = config.network;
  const steps = await (isUndo ? undoNetworkSetup({ signal }) : setUpNetwork({ pool, signal }));
  if (context.json) return context.printJson(steps);
  const [done, there] = isUndo ? ['undone', 'was not done'] : ['done', 'was there'];
  for (const { what, changed } of steps) context.print(`${changed ? done : there}: ${what}`);
}
