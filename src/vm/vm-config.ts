/** From what a caller asks to what a VM is made of. */
import { MACHINE_TYPES } from '../../firmware/machine.ts';
import { checkOptionShapes, wholeNumber, type OptionShapes } from '../config/check-options.ts';
import {
  DEFAULT_CONFIG,
  DISK_MIB,
  DISK_QUOTA_MIB,
  MAX_VCPUS,
  MEMORY_MIB,
} from '../config/schema.ts';
import { ConfigError, HostError } from '../errors.ts';
import type { Image } from '../image/index.ts';
import {
  checkCapture,
  checkReach,
  DEFAULT_NETWORKS,
  type DefaultNetwork,
  defaultNetwork,
  type LanOptions,
  makePolicy,
  parseAllPublished,
  parseLan,
  resolveEgress,
  type EgressRequest,
} from '../network/index.ts';
import { bridgeOf, checkNetworkMode, type NetworkMode } from '../network/mode.ts';
import type { VmCloneOptions, VmCreateOptions, VmForkOptions } from './api.ts';
import { hasVhostVsock } from './accel.ts';
import { MAX_CHILDREN } from './fork/limits.ts';
import { checkVmName } from './ids.ts';
import type { VmConfig } from './record.ts';

const MIB = 2 ** 20;
/** A host name by RFC 1123, which the kernel's command line takes as one word. */
const HOSTNAME = /^[A-Za-z0-9](?:[A-Za-z0-9.-]{0,61}[A-Za-z0-9])?$/;
/** x86's COMMAND_LINE_SIZE is 2048; the rest is ours. */
const MAX_KERNEL_ARGS_CHARS = 1_024;
/** AF_VSOCK context ids: 0–2 are reserved, the last means any (linux/vm_sockets.h). */
const CID = { min: 3, max: 0xffff_fffe } as const;

/** How errors call an option. */
const NAMED = { section: 'vm', noun: 'option' };
/** How they call what is captured of a new VM. */
export const PCAP = 'vm.pcap';

/** What was asked for, checked, defaults filled in, before the image is known. */
export interface CheckedOptions {
  readonly image: string;
  readonly name: string | undefined;
  readonly vcpus: number;
  readonly memoryMib: number;
  readonly diskBytes: number | undefined;
  readonly diskQuotaBytes: number | undefined;
  readonly accel: VmConfig['accel'];
  readonly machine: VmConfig['machine'];
  readonly channel: 'auto' | 'vsock' | 'virtio-serial';
  readonly cid: number | undefined;
  /** Undefined: as the host can. */
  readonly network: NetworkMode | undefined;
  readonly defaultNetwork: DefaultNetwork | undefined;
  readonly lan: LanOptions | undefined;
  readonly egress: EgressRequest | undefined;
  readonly publish: readonly string[] | undefined;
  readonly ipv6: boolean | undefined;
  readonly hostname: string | undefined;
  readonly kernelArgs: readonly string[];
  readonly qemuPath: string;
  readonly persistent: boolean;
}

/** All of {@link VmCreateOptions}: the type makes sure that none is missing, and none too many. */
const OPTIONS: OptionShapes<VmCreateOptions> = {
  image: 'text',
  name: 'text',
  vcpus: 'number',
  memoryMib: 'number',
  diskMib: 'number',
  diskQuotaMib: 'number',
  accel: 'text',
  machine: 'text',
  cid: 'number',
  channel: 'text',
  network: 'text',
  defaultNetwork: 'text',
  lan: 'object',
  egress: 'object',
  publish: 'texts',
  ipv6: 'flag',
  pcap: 'object',
  hostname: 'text',
  kernelArgs: 'texts',
  persistent: 'flag',
  qemuPath: 'text',
  onProgress: 'function',
  timeoutMs: 'number',
  signal: 'signal',
  paths: 'object',
};

/** All of {@link VmCloneOptions}. */
const CLONE_OPTIONS: OptionShapes<VmCloneOptions> = {
  name: 'text',
  hostname: 'text',
  persistent: 'flag',
  diskQuotaMib: 'number',
  network: 'text',
  lan: 'object',
  egress: 'object',
  publish: 'texts',
  ipv6: 'flag',
  pcap: 'object',
  cid: 'number',
  paused: 'flag',
  qemuPath: 'text',
  onProgress: 'function',
  timeoutMs: 'number',
  signal: 'signal',
  paths: 'object',
};

/** Checks what can be checked without a look at the template. Pure. @throws ConfigError */
export function checkCloneOptions(o: VmCloneOptions): void {
  checkOptionShapes(o, CLONE_OPTIONS, NAMED);
  if (o.name !== undefined) checkVmName(o.name);
  if (o.hostname !== undefined) checkHostname(o.hostname);
  if (o.cid !== undefined) wholeNumber('vm.cid', o.cid, CID.min, CID.max);
  if (o.network !== undefined) checkNetworkMode(o.network);
  if (o.lan !== undefined) parseLan(o.lan);
  checkEgress(o);
  if (o.pcap !== undefined) checkCapture(o.pcap, PCAP);
  quotaBytesOf(o);
}

/** The disk quota that is asked for. @throws ConfigError */
export function quotaBytesOf({
  diskQuotaMib: mib,
}: Pick<VmCloneOptions, 'diskQuotaMib'>): number | undefined {
  const { min, max } = DISK_QUOTA_MIB;
  return mib === undefined ? undefined : wholeNumber('vm.diskQuotaMib', mib, min, max) * MIB;
}

/** All of {@link VmForkOptions}. */
const FORK_OPTIONS: OptionShapes<VmForkOptions> = {
  count: 'number',
  names: 'texts',
  persistent: 'flag',
  timeoutMs: 'number',
  signal: 'signal',
};

/**
 * Checks what is asked of a fork. Pure.
 * @returns a name, or none, for each child
 * @throws ConfigError
 */
export function checkForkOptions(o: VmForkOptions): readonly (string | undefined)[] {
  checkOptionShapes(o, FORK_OPTIONS, { section: 'fork', noun: 'option' });
  const names = o.names ?? [];
  const count = wholeNumber('fork.count', o.count ?? Math.max(1, names.length), 1, MAX_CHILDREN);
  for (const name of names) checkVmName(name);
  const twice = names.find((name, index) => names.indexOf(name) !== index);
  if (names.length !== 0 && (names.length !== count || twice !== undefined)) {
    const why = twice === undefined ? `${names.length} for ${count} children` : `${twice} twice`;
    throw new ConfigError(`the names do not fit: ${why}`, {
      field: 'fork.names',
      value: names,
      hint: 'Give each child a name of its own, or none of them.',
    });
  }
  return Array.from({ length: count }, (_, index) => names[index]);
}

function checkHostname(hostname: string): void {
  if (HOSTNAME.test(hostname)) return;
  throw new ConfigError(`${JSON.stringify(hostname)} is not a host name`, {
    field: 'vm.hostname',
    value: hostname,
    hint: 'Use at most 63 letters, digits, "-" and ".", with a letter or digit at both ends.',
  });
}

/** Checks all that can be checked without a look at the host. Pure. @throws ConfigError */
export function checkOptions(o: VmCreateOptions): CheckedOptions {
  const defaults = DEFAULT_CONFIG.vm;
  checkOptionShapes(o, OPTIONS, NAMED);
  if (o.pcap !== undefined) checkCapture(o.pcap, PCAP);
  if (o.name !== undefined) checkVmName(o.name);
  if (o.hostname !== undefined) checkHostname(o.hostname);
  const kernelArgs = o.kernelArgs ?? [];
  if (
    kernelArgs.some((word) => /[^\x21-\x7e]/.test(word)) ||
    kernelArgs.join(' ').length > MAX_KERNEL_ARGS_CHARS
  ) {
    throw new ConfigError('kernel arguments must be printable words', {
      field: 'vm.kernelArgs',
      value: kernelArgs,
      hint: `Give words without blanks, ${MAX_KERNEL_ARGS_CHARS} characters in all at most.`,
    });
  }
  const disk =
    o.diskMib === undefined
      ? undefined
      : wholeNumber('vm.diskMib', o.diskMib, DISK_MIB.min, DISK_MIB.max);
  return {
    image: o.image ?? defaults.image,
    name: o.name,
    vcpus: wholeNumber('vm.vcpus', o.vcpus ?? defaults.vcpus, 1, MAX_VCPUS),
    memoryMib: wholeNumber(
      'vm.memoryMib',
      o.memoryMib ?? defaults.memoryMib,
      MEMORY_MIB.min,
      MEMORY_MIB.max,
    ),
    diskBytes: disk === undefined ? undefined : disk * MIB,
    diskQuotaBytes: quotaBytesOf(o),
    accel: oneOf('vm.accel', o.accel ?? defaults.accel, ['auto', 'kvm', 'tcg']),
    machine: oneOf('vm.machine', o.machine ?? defaults.machine, MACHINE_TYPES),
    channel: oneOf('vm.channel', o.channel ?? defaults.channel, ['auto', 'vsock', 'virtio-serial']),
    cid: o.cid === undefined ? undefined : wholeNumber('vm.cid', o.cid, CID.min, CID.max),
    network: networkAskedFor(o),
    defaultNetwork:
      o.defaultNetwork && oneOf('network.default', o.defaultNetwork, DEFAULT_NETWORKS),
    lan: checkLan(o.network, o.lan),
    egress: checkOwnEgress(o),
    publish: o.publish,
    ipv6: o.ipv6,
    hostname: o.hostname,
    kernelArgs,
    qemuPath: o.qemuPath ?? DEFAULT_CONFIG.qemu.path,
    persistent: o.persistent ?? false,
  };
}

/**
 * The configuration of a VM on this host and image.
 * @throws HostError ERR_HOST_VSOCK vsock (or a CID) was asked for and the host has none
 */
export async function resolveConfig(
  o: CheckedOptions,
  id: string,
  image: Image,
): Promise<VmConfig> {
  const [channel, network] = await Promise.all([
    resolveChannel(o),
    o.network ?? defaultNetwork(o.defaultNetwork),
  ]);
  return {
    image: image.name,
    imageId: image.id,
    rootfsPath: image.rootfsPath,
    vcpus: o.vcpus,
    memoryMib: o.memoryMib,
    diskBytes: o.diskBytes ?? image.rootfsVirtualBytes,
    diskQuotaBytes: o.diskQuotaBytes,
    accel: o.accel,
    machine: o.machine,
    channel,
    cid: o.cid,
    network,
    lan: o.lan,
    egress: o.egress && (await resolveEgress(o.egress)),
    publish: o.publish,
    ipv6: o.ipv6 === true ? true : undefined,
    hostname: o.hostname ?? hostnameFrom(o.name ?? id),
    kernelArgs: o.kernelArgs,
    qemuPath: o.qemuPath,
    persistent: o.persistent,
  };
}

async function resolveChannel(o: CheckedOptions): Promise<'vsock' | 'virtio-serial'> {
  if (o.channel === 'virtio-serial') return 'virtio-serial';
  if (await hasVhostVsock()) return 'vsock';
  if (o.channel === 'auto' && o.cid === undefined) return 'virtio-serial';
  throw new HostError('ERR_HOST_VSOCK', '/dev/vhost-vsock does not exist or cannot be opened', {
    hint: 'Load the module (`modprobe vhost_vsock`), run as root or in its group, or use the virtio-serial channel.',
  });
}

/** A VM's name has characters that a host name cannot have. */
export function hostnameFrom(name: string): string {
  return name.replaceAll('_', '-').replace(/[.-]+$/, '');
}

/** @throws ConfigError */
function networkAskedFor(o: VmCreateOptions): NetworkMode | undefined {
  const wanted = o.network ?? impliedNetwork(o);
  return wanted && checkNetworkMode(wanted);
}

/** Who says what is to be reached, or from where, or how, wants a network. */
export function impliedNetwork(
  o: Pick<VmCloneOptions, 'egress' | 'publish' | 'ipv6'>,
): NetworkMode | undefined {
  return fieldOfReach(o) === undefined ? undefined : 'nat-filtered';
}

/** The first option that says so. */
function fieldOfReach({
  egress,
  publish = [],
  ipv6,
}: Pick<VmCloneOptions, 'egress' | 'publish' | 'ipv6'>): string | undefined {
  if (egress !== undefined) return 'vm.egress';
  if (publish.length > 0) return 'vm.publish';
  return ipv6 === true ? 'vm.ipv6' : undefined;
}

/**
 * Who a VM is on its bridge: to be given with one, and only then. Pure.
 * @throws ConfigError field `vm.lan`, or one of its own
 */
export function checkLan(
  network: NetworkMode | undefined,
  lan: LanOptions | undefined,
): LanOptions | undefined {
  if (lan !== undefined) parseLan(lan);
  const isOnBridge = bridgeOf(network) !== undefined;
  if (isOnBridge === (lan !== undefined)) return lan;
  const [what, hint] = isOnBridge
    ? [
        `the network ${network} needs an address for the VM: its guest asks no DHCP server`,
        'Give one that nobody else has there, with its network: --address 192.0.2.5/24 (and --gateway, --dns).',
      ]
    : [
        `the network ${network ?? 'that is taken'} gives the VM its address itself`,
        'Leave --address, --gateway and --dns out, or take --network bridge=NAME.',
      ];
  throw new ConfigError(what, { field: 'vm.lan', value: lan, hint });
}

/** What is asked for makes a policy, and there is something that it rules. @throws ConfigError */
function checkEgress(
  o: Pick<VmCloneOptions, 'network' | 'egress' | 'publish' | 'ipv6'>,
): EgressRequest | undefined {
  const { network, egress, publish = [], ipv6 } = o;
  makePolicy(egress ?? {});
  parseAllPublished(publish);
  const field = fieldOfReach(o);
  if (field === undefined || network === undefined || network === 'nat-filtered') return egress;
  if (field === 'vm.ipv6') {
    throw new ConfigError(`the network ${network} has no IPv6`, {
      ...{ field, value: ipv6 },
      hint: 'Take the network nat-filtered, or leave IPv6 out.',
    });
  }
  throw new ConfigError(`the network ${network} has no policy and no ports`, {
    field,
    value: egress ?? publish,
    hint: 'Take the network nat-filtered, or leave out what it may reach and what is published.',
  });
}

/** Of a VM that is no clone, which may have IPv6 from its template. @throws ConfigError */
function checkOwnEgress(o: VmCreateOptions): EgressRequest | undefined {
  const egress = checkEgress(o);
  checkReach(egress ?? {}, { hasIpv6: o.ipv6 === true });
  return egress;
}

function oneOf<const T extends string>(field: string, value: T, choices: readonly T[]): T {
  if (choices.includes(value)) return value;
  throw new ConfigError(`${field} is ${JSON.stringify(value)}`, {
    field,
    value,
    hint: `Give one of ${choices.join(', ')}.`,
  });
}
