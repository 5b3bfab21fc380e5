/** `qmp-agent net …`: what a VM may reach, and what it did. */
import type { Command } from 'commander';
import { formatBytes } from '../../config/units.ts';
import { ConfigError } from '../../errors.ts';
import type { TrafficRecord } from '../../network/index.ts';
import { placeText } from '../../network/ipv6-text.ts';
import { formatBandwidth } from '../../network/limits.ts';
import type { NetworkInfo } from '../../vm/api.ts';
import type { CliContext } from '../context.ts';
import {
  addEgressOptions,
  addLimitOptions,
  egressOf,
  limitsOf,
  type EgressFlags,
  type LimitFlags,
} from '../egress-flags.ts';
import { safeJson } from '../safe-json.ts';
import { withVm } from '../vm-access.ts';
import { addNetCapture } from './net-capture.ts';

interface LogFlags {
  follow?: boolean;
  denied?: boolean;
}

/** Adds `net` with its subcommands. */
export function registerNet(program: Command, context: CliContext): void {
  const net = program
    .command('net')
    .description("A VM's network: what it may reach, changed while it runs; what it did.");
  const add = (name: string, description: string) =>
    net
      .command(name)
      .description(description)
      .argument('<vm>', 'id, unique prefix of an id, or name')
      .option('--json', 'print JSON');
  add('show', 'Show its policy, rule by rule, with what each let through.').action((vm: string) =>
    show(context, vm),
  );
  add('stats', 'Show what it sent, received and was denied.').action((vm: string) =>
    stats(context, vm),
  );
  add('log', 'Show its connections, denials and questions for names, oldest first.')
    .option('-f, --follow', 'go on with what comes, until Ctrl-C')
    .action((vm: string, flags: LogFlags) => log(context, vm, flags));
  add('denied', 'Show what it was denied, why, and the flag that would allow it.')
    .option('-f, --follow', 'go on with what comes, until Ctrl-C')
    .action((vm: string, flags: LogFlags) => log(context, vm, { ...flags, denied: true }));
  addNetCapture(
    add('capture', 'Write its packets to a file or to stdout, in pcap, until Ctrl-C.'),
    context,
  );
  const change = (name: 'set' | 'allow' | 'deny', description: string) =>
    addEgressOptions(
      add(name, description).action((vm: string, flags: EgressFlags) =>
        alter(context, vm, name, flags),
      ),
    );
  addLimitOptions(
    change(
      'set',
      'Give it another policy. Connections that it still allows live on, others are cut.',
    ),
  );
  addLimitOptions(
    add('limit', 'Change its bounds, and nothing else: those not given stay as they are.').action(
      (vm: string, flags: LimitFlags) => limit(context, vm, flags),
    ),
  );
  change('allow', 'Allow more: all that was open stays open.');
  change('deny', 'Deny names or addresses (--deny-domain, --deny-cidr, --no-public).');
}

async function show(context: CliContext, idOrName: string): Promise<void> {
  const info = await withVm(context, idOrName, (vm) => vm.network.info());
  if (context.json) return context.printJson(info);
  printFacts(context, info);
  if (info.rules === undefined) return;
  const { printTable } = await import('../table.ts');
  printTable(
    context,
    ['ACTION', 'PROTOCOL', 'PORTS', 'FOR', 'PACKETS', 'BYTES'],
    info.rules.map(({ action, protocol, ports, title, count }) => [
      ...[action, protocol, portsText(ports), title],
      ...[count?.packets, count && formatBytes(count.bytes)],
    ]),
  );
}

function printFacts(context: CliContext, info: NetworkInfo): void {
  context.print(`network  ${info.mode ?? 'none'}`);
  if (info.limits !== undefined) {
    const { uploadBitsPerSecond: up, downloadBitsPerSecond: down } = info.limits;
    const { newConnectionsPerSecond, connections } = info.limits;
    context.print(`bounds   up ${formatBandwidth(up)}, down ${formatBandwidth(down)}`);
    context.print(
      `         new connections a second ${newConnectionsPerSecond}, at a time ${connections}`,
    );
  }
  if (info.tap === undefined) return;
  context.print(`tap      ${info.tap}`);
  if (info.lan !== undefined) {
    const { address, gateway = 'none', dns = [] } = info.lan;
    context.print(`guest    ${address}, gateway ${gateway}, names ${dns.join(', ') || 'none'}`);
    return;
  }
  context.print(
    `guest    ${info.guestAddress ?? '-'}, gateway and resolver ${info.gatewayAddress ?? '-'}`,
  );
  if (info.ipv6 !== undefined) {
    const { guestAddress, gatewayAddress } = info.ipv6;
    context.print(`         ${guestAddress}, gateway ${gatewayAddress}`);
  }
  for (const port of info.published ?? []) context.print(`port     ${port}`);
  const { denyDomains = [], denial = 'reject' } = info.egress ?? {};
  context.print(`denials  ${denial === 'reject' ? 'are told at once' : 'are silent'}`);
  if (denyDomains.length > 0) context.print(`names    not answered: ${denyDomains.join(', ')}`);
}

async function stats(context: CliContext, idOrName: string): Promise<void> {
  const { sent, received, denied } = await withVm(context, idOrName, (vm) => vm.network.info());
  if (context.json) return context.printJson({ sent, received, denied });
  const { printTable } = await import('../table.ts');
  printTable(
    context,
    ['', 'PACKETS', 'BYTES'],
    Object.entries({ sent, received, denied }).map(([name, count]) => [
      ...[name, count?.packets, count && formatBytes(count.bytes)],
    ]),
  );
}

async function log(context: CliContext, idOrName: string, flags: LogFlags): Promise<void> {
  await withVm(context, idOrName, async (vm) => {
    const { follow, denied } = flags;
    for await (const record of vm.network.records({ follow, denied, signal: context.signal })) {
      context.print(context.json ? safeJson(record) : lineOf(record));
    }
  });
}

async function alter(
  context: CliContext,
  idOrName: string,
  how: 'set' | 'allow' | 'deny',
  flags: EgressFlags,
): Promise<void> {
  const egress = egressOf(flags);
  if (egress === undefined && how !== 'set') {
    throw new ConfigError(`nothing to ${how}`, {
      field: `net ${how}`,
      value: undefined,
      hint: `Say what: see qmp-agent net ${how} --help.`,
    });
  }
  const { signal } = context;
  const after = await withVm(context, idOrName, (vm) => vm.network[how](egress ?? {}, { signal }));
  if (context.json) context.printJson(after);
  else context.print(idOrName);
}

async function limit(context: CliContext, idOrName: string, flags: LimitFlags): Promise<void> {
  const limits = limitsOf(flags);
  if (limits === undefined) {
    throw new ConfigError('nothing to limit', {
      field: 'net limit',
      value: undefined,
      hint: 'Say what, e.g. --bandwidth-down 10mbit: see qmp-agent net limit --help.',
    });
  }
  const { signal } = context;
  const after = await withVm(context, idOrName, (vm) => vm.network.limit(limits, { signal }));
  if (context.json) context.printJson(after);
  else context.print(idOrName);
}

/** One record for people; a guest chose some of it, so nothing that a terminal obeys gets through. */
function lineOf(record: TrafficRecord): string {
  const text =
    record.kind === 'dns'
      ? [
          ...[record.time, 'dns', record.recordType, record.name, record.verdict],
          ...(record.addresses === undefined ? [] : [record.addresses.join(',')]),
          ...(record.rule === undefined ? [] : [`(${record.rule})`]),
        ]
      : [
          ...[record.time, record.kind, record.protocol],
          `${placeText(record.from ?? '?', record.fromPort)} -> ${placeText(record.to ?? '?', record.toPort)}`,
          ...(record.name === undefined ? [] : [`[${record.name}]`]),
          ...(record.reason === undefined ? [] : [`: ${record.reason}`]),
          ...(record.rule === undefined ? [] : [`(${record.rule})`]),
        ];
  const remedy = record.remedy === undefined ? '' : `; to allow it: ${record.remedy}`;
  return `${text.join(' ')}${remedy}`.replace(/[^\x20-\x7e]/g, '?');
}

function portsText(ports: readonly (number | readonly [number, number])[]): string {
  return ports.length === 0
    ? 'all'
    : ports.map((port) => (typeof port === 'number' ? port : port.join('-'))).join(',');
}
