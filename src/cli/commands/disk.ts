/** `qmp-agent disk …`. */
import type { Command } from 'commander';
import { formatBytes } from '../../config/units.ts';
import type { DiskUsage } from '../../vm/usage/types.ts';
import type { CliContext } from '../context.ts';
import type { Row } from '../table.ts';

/** Adds `disk` with its subcommands. */
export function registerDisk(program: Command, context: CliContext): void {
  const disk = program.command('disk').description("What is on the host's disk.");
  disk
    .command('usage')
    .description(
      'Show what images, templates and VMs take on the host, who stands on what, and what could be had back.',
    )
    .option('--json', 'print everything as JSON, sizes in bytes')
    .action(() => usage(context));
}

async function usage(context: CliContext): Promise<void> {
  const { diskUsage } = await import('../../vm/usage/disk-usage.ts');
  const found = await diskUsage({ paths: context.paths });
  if (context.json) {
    context.printJson(found);
    return;
  }
  const { printTable } = await import('../table.ts');
  for (const { head, rows } of tablesOf(found)) {
    if (rows.length === 0) continue;
    printTable(context, head, rows);
    context.print('');
  }
  const [used, back] = [found.usedBytes, found.reclaimableBytes].map(formatBytes);
  context.print(`${used} in all, ${back} of it to be had back${back === '0 B' ? '.' : ':'}`);
  const ways = found.reclaimable.map((one): Row => [formatBytes(one.usedBytes), one.command]);
  if (ways.length > 0) printTable(context, ['SIZE', 'COMMAND'], ways);
}

function tablesOf(found: DiskUsage): { head: string[]; rows: Row[] }[] {
  const users = (usedBy: readonly string[]) =>
    usedBy.length === 0 ? '0' : `${usedBy.length}: ${usedBy.join(', ')}`;
  return [
    {
      head: ['IMAGE', 'VERSION', 'SIZE', 'USED BY'],
      rows: found.images.map((one): Row => {
        const version = one.isCurrent ? one.version : `${one.version} (old)`;
        return [one.name, version, formatBytes(one.usedBytes), users(one.usedBy)];
      }),
    },
    {
      head: ['TEMPLATE', 'SIZE', 'MEMORY', 'DISK', 'USED BY'],
      rows: found.templates.map((one): Row => {
        const sizes = [one.usedBytes, one.memoryBytes, one.diskBytes].map(formatBytes);
        const name = one.defect === undefined ? one.name : `${one.name} (broken)`;
        return [name, ...sizes, users(one.usedBy)];
      }),
    },
    {
      head: ['VM', 'STATE', 'SIZE', 'DISK', 'QUOTA', 'SNAPSHOTS', 'LOGS', 'OTHER', 'STANDS ON'],
      rows: found.vms.map((one): Row => {
        const quota = one.quotaBytes === undefined ? undefined : formatBytes(one.quotaBytes);
        const stateBytes = one.snapshots.reduce((total, { stateBytes: own }) => total + own, 0);
        const snapshots = `${one.snapshots.length} (${formatBytes(stateBytes)})`;
        return [
          ...[one.name ?? one.id, one.state, formatBytes(one.usedBytes)],
          ...[formatBytes(one.diskBytes), quota],
          one.snapshots.length === 0 ? undefined : snapshots,
          ...[formatBytes(one.logBytes), formatBytes(one.otherBytes), one.standsOn],
        ];
      }),
    },
    {
      head: ['OTHER', 'SIZE'],
      rows: [...found.others, found.cache].map((one): Row => [
        one.path,
        formatBytes(one.usedBytes),
      ]),
    },
  ];
}
