/** `qmp-agent setup …`: what has to be done to a host once. */
import { Option, type Command } from 'commander';
import { ConfigError } from '../../errors.ts';
import { setUpNetwork, undoNetworkSetup, userIdOf } from '../../network/index.ts';
import { ConfigOption, wholeNumberTo } from '../config-flags.ts';
import type { CliContext } from '../context.ts';

/** Most taps that are made ahead of time for a user. */
const TAPS_MAX = 1_000;

interface SetupFlags {
  undo?: boolean;
  taps?: number;
  user?: string;
  /** True: `--ipv6` without a prefix. */
  ipv6?: string | true;
}

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
    .addOption(
      new Option(
        '--ipv6 [cidr]',
        'let VMs have IPv6 (--ipv6 of run, create, clone), from this unique local prefix, /48 to /112 (default: as before, else a random one)',
      ).conflicts('undo'),
    )
    .addOption(
      new Option(
        '--taps <n>',
        'have so many taps for VMs of a user who may not make any, until the next boot',
      )
        .argParser(wholeNumberTo(TAPS_MAX))
        .conflicts('undo'),
    )
    .addOption(new Option('--user <name>', 'whose VMs may have the --taps').conflicts('undo'))
    .option('--json', 'print JSON')
    .action((flags: SetupFlags) => network(context, flags));
}

async function network(context: CliContext, { undo, ...flags }: SetupFlags): Promise<void> {
  const { signal, config } = context;
  const { pool } = config.network;
  const isUndo = undo === true;
  const steps = await (isUndo
    ? undoNetworkSetup({ signal })
    : setUpNetwork({ pool, ipv6: flags.ipv6, taps: await tapsOf(flags, signal), signal }));
  if (context.json) return context.printJson(steps);
  const [done, there] = isUndo ? ['undone', 'was not done'] : ['done', 'was there'];
  for (const { what, changed } of steps) context.print(`${changed ? done : there}: ${what}`);
}

async function tapsOf(
  { taps: count, user }: Pick<SetupFlags, 'taps' | 'user'>,
  signal: AbortSignal,
): Promise<{ count: number; uid: number } | undefined> {
  if (count === undefined && user === undefined) return undefined;
  if (count !== undefined && user !== undefined)
    return { count, uid: await userIdOf(user, { signal }) };
  const field = count === undefined ? '--taps' : '--user';
  throw new ConfigError(`${field} is missing`, {
    field,
    hint: 'Taps are made for a user: give both, e.g. --taps 8 --user alice.',
  });
}
