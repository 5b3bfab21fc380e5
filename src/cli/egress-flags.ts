/** Flags that say what a VM may reach. */
import { InvalidArgumentError, Option, type Command } from 'commander';
import { ConfigError } from '../errors.ts';
import type { EgressRequest, LanOptions, LimitOptions } from '../network/index.ts';
import { parseBandwidth, parsePerSecond, type Bound } from '../network/limits.ts';
import { collect } from './config-flags.ts';

/** As commander gives them. */
export interface LimitFlags {
  bandwidthUp?: Bound;
  bandwidthDown?: Bound;
  newConnections?: Bound;
  maxConnections?: Bound;
}

/** As commander gives them. */
export interface EgressFlags extends LimitFlags {
  allowDomain?: string[];
  denyDomain?: string[];
  allowCidr?: string[];
  denyCidr?: string[];
  allowPort?: string[];
  preset?: string[];
  /** False: `--no-public`. */
  public?: boolean;
  deny?: string;
}

/** As commander gives them. */
export interface LanFlags {
  address?: string;
  gateway?: string;
  dns?: string[];
}

/** Those of a new VM. */
export interface ReachFlags extends EgressFlags, LanFlags {
  publish?: string[];
  ipv6?: boolean;
}

const GROUP =
  'Network (they imply --network nat-filtered; what allows, denies or publishes may be repeated):';

/** Adds them. */
export function addEgressOptions(command: Command): Command {
  return command
    .optionsGroup(GROUP)
    .option(
      '--allow-domain <name>',
      'open this name (*.NAME: all below it), and only what is named',
      collect,
    )
    .option('--deny-domain <name>', 'do not answer this name (*.NAME: all below it)', collect)
    .option(
      '--allow-cidr <cidr>',
      'open this address or network, private ones too; :PORT for one port, of IPv6 [CIDR]:PORT',
      collect,
    )
    .option('--deny-cidr <cidr>', 'keep this address or network shut', collect)
    .option(
      '--allow-port <port>',
      'a port besides 80, 443, 22, 9418: 8080, 8000-8010, 443/udp',
      collect,
    )
    .option(
      '--preset <name>',
      'open what npm, pip, cargo, apt, git, anthropic, … need, and only what is named',
      collect,
    )
    .option('--no-public', 'keep public addresses shut, whatever is named')
    .addOption(
      new Option(
        '--deny <how>',
        'reject what is denied at once, or drop it silently (default: reject)',
      ).choices(['reject', 'drop']),
    );
}

/** Who a new VM is on the bridge that it joins. */
export function addLanOptions(command: Command): Command {
  return command
    .optionsGroup('With --network bridge=NAME:')
    .option('--address <cidr>', 'address of the VM with its network, e.g. 192.0.2.5/24')
    .option('--gateway <address>', 'router that its default route leads to (default: none)')
    .option('--dns <address>', 'name server, up to three times (default: none)', collect);
}

/** What they ask for; undefined: none was given. @throws ConfigError no address is among them */
export function lanOf({ address, gateway, dns }: LanFlags): LanOptions | undefined {
  if (address !== undefined) return { address, gateway, dns };
  if (gateway === undefined && dns === undefined) return undefined;
  throw new ConfigError('--gateway and --dns go with --address', {
    field: '--address',
    hint: 'Give the VM an address, e.g. --address 192.0.2.5/24.',
  });
}

/** Adds the flags that bound it. */
export function addLimitOptions(command: Command): Command {
  const bandwidth = reader(
    parseBandwidth,
    'give bits per second, as 800kbit, 10mbit or 1gbit; or none.',
  );
  return command
    .optionsGroup(GROUP)
    .option(
      '--bandwidth-up <rate>',
      'most that it sends, as 10mbit, 800kbit; or none (default: none)',
      bandwidth,
    )
    .option('--bandwidth-down <rate>', 'most that it is sent, likewise (default: none)', bandwidth)
    .option(
      '--new-connections <rate>',
      'connections that it may open a second, as 50/s; or none (default: 200/s)',
      reader(parsePerSecond, 'give a whole number a second, as 50/s; or none.'),
    )
    .option(
      '--max-connections <n>',
      'connections that it may have at a time; or none (default: 1000)',
      reader(parseCount, 'give a whole number, or none.'),
    );
}

function reader(parse: (text: string) => Bound | undefined, hint: string): (text: string) => Bound {
  return (text) => {
    const value = parse(text);
    if (value === undefined) throw new InvalidArgumentError(hint);
    return value;
  };
}

function parseCount(text: string): Bound | undefined {
  if (text === 'none') return 'none';
  return /^\d{1,9}$/.test(text) ? Number(text) : undefined;
}

/** What they ask for; undefined: none was given. */
export function limitsOf(flags: LimitFlags): LimitOptions | undefined {
  const limits: LimitOptions = {
    uploadBitsPerSecond: flags.bandwidthUp,
    downloadBitsPerSecond: flags.bandwidthDown,
    newConnectionsPerSecond: flags.newConnections,
    connections: flags.maxConnections,
  };
  const given = Object.entries(limits).filter(([, value]) => value !== undefined);
  return given.length === 0 ? undefined : Object.fromEntries(given);
}

/** All that says what a new VM reaches, and who reaches it. */
export function addReachOptions(command: Command): Command {
  return addLanOptions(addIpv6Option(addPublishOption(addLimitOptions(addEgressOptions(command)))));
}

/** What they ask for. @throws ConfigError */
export function reachOf(flags: ReachFlags) {
  const { publish, ipv6 } = flags;
  return { egress: egressOf(flags), publish, ipv6, lan: lanOf(flags) };
}

/** Ports of the host that lead to a new VM. */
function addPublishOption(command: Command): Command {
  return command.option(
    '-p, --publish <ports>',
    'a port of the host that leads to one of the VM: 8080:80, 5353:53/udp, or 0.0.0.0:8080:80',
    collect,
  );
}

/** IPv6 of a new VM. */
export function addIpv6Option(command: Command): Command {
  return command
    .optionsGroup(GROUP)
    .option('--ipv6', 'IPv6 besides IPv4, under the same policy (default: none, or the template’s)')
    .option('--no-ipv6', 'no IPv6, whatever the template has');
}

/** What they ask for; undefined: none was given. */
export function egressOf(flags: EgressFlags): EgressRequest | undefined {
  const request: EgressRequest = {
    allowDomains: flags.allowDomain,
    denyDomains: flags.denyDomain,
    allowCidrs: flags.allowCidr,
    denyCidrs: flags.denyCidr,
    allowPorts: flags.allowPort,
    presets: flags.preset,
    public: flags.public === false ? false : undefined,
    denial: flags.deny as EgressRequest['denial'],
    limits: limitsOf(flags),
  };
  return Object.values(request).some((value) => value !== undefined) ? request : undefined;
}
