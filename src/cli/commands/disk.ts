/** `qmp-agent disk …`. */
import type { Command } from 'commander';
import { formatBytes, parseMib } from '../../config/units.ts';
import { ConfigError } from '../../errors.ts';
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
  disk
    .command('quota')
    .description('Raise the disk quota of a VM, whether it runs or not.')
    .argument('<vm>', 'id, unique prefix of an id, or name')
    .argument('<size>', 'most that its disk takes on the host from now on, e.g. 8G')
    .option('--json', 'print JSON')
    .action((vm: string, size: string) => quota(context, vm, size));
}

async function quota(context: CliContext, vm: string, size: string): Promise<void> {
  const diskQuotaMib = parseMib(size);
  if (diskQuotaMib === undefined) {
    throw new ConfigError(`${JSON.stringify(size)} is no size`, {
      field: 'size',
      value: size,
      hint: 'Give MiB as a number, or a size such as 512M or 8G.',
    });
  }
  const { raiseDiskQuota } = await import('../../vm/raise-quota.ts');
  const { paths, signal } = context;
  await raiseDiskQuota(vm, diskQuotaMib, { paths, signal });
  if (context.json) context.printJson({ vm, diskQuotaMib, ok: true });
  else context.print(vm);
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
      head: [
        ...['VM', 'STATE', 'SIZE', 'DISK', 'QUOTA', 'SNAPSHOTS', 'SUSPENDED'],
        ...['LOGS', 'OTHER', 'STANDS ON'],
      ],
      rows: found.vms.map((one): Row => {
        const quota = one.quotaBytes === undefined ? undefined : formatBytes(one.quotaBytes);
        const stateBytes = one.snapshots.reduce((total, { stateBytes: own }) => total + own, 0);
        const snapshots = `${one.snapshots.length} (${formatBytes(stateBytes)})`;
        return [
          ...[one.name ?? one.id, one.state, formatBytes(one.usedBytes)],
          ...[formatBytes(one.diskBytes), quota],
          one.snapshots.length === 0 ? undefined : snapshots,
          one.suspendedBytes === 0 ? undefined : formatBytes(one.suspendedBytes),
          ...[formatBytes(one.logBytes), formatBytes(one.otherBytes), one.standsOn],
        ];
      }),
    },
    {
      head: ['SNAPSHOT', 'MEMORY'],
      rows: found.vms.flatMap(({ id, name, snapshots }) =>
        snapshots.map((one): Row => [`${name ?? id}@${one.name}`, formatBytes(one.stateBytes)]),
      ),
    },
    {
      head: ['FORKED AT', 'VM', 'SIZE', 'MEMORY', 'DISK', 'USED BY'],
      rows: found.checkpoints.map((one): Row => {
        const sizes = [one.usedBytes, one.memoryBytes, one.diskBytes].map(formatBytes);
        return [one.id, one.forkedFrom, ...sizes, users(one.usedBy)];
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
