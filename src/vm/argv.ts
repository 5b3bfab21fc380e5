/**
 * QEMU's command line from a validated configuration. Pure.
 *
 * Nothing implicit (`-nodefaults -no-user-config`), only the modern forms (`-blockdev`, `-device`,
 * `-chardev`, `-object`), each with the id by which QMP finds it again. Valid for QEMU 7.2 to 10.
 * Options: https://www.qemu.org/docs/master/system/invocation.html
 */
import { machineFacts, type MachineType } from '../../firmware/machine.ts';
import { VIRTIO_PORT_PREFIX } from '../../guest-agent/protocol.ts';
import type { NetdevConfig, NicConfig } from '../network/nic.ts';
import type { Accel } from './api.ts';
import type { DiskAio } from './disk-aio.ts';

/** How host and agent talk: one vsock device, or virtio-serial ports with a socket each. */
export type ChannelConfig =
  | { readonly kind: 'vsock'; readonly cid: number }
  | { readonly kind: 'virtio-serial'; readonly socketPaths: readonly string[] };

/** A guest that boots. */
export interface ColdStart {
  readonly kind: 'cold';
  readonly kernelPath: string;
  readonly initramfsPath: string;
  readonly cmdline: string;
}

/**
 * A guest that goes on from where a template stood. QEMU waits for its devices' state
 * (`migrate-incoming`); it needs no kernel, which would only cost time.
 */
export interface CloneStart {
  readonly kind: 'clone';
  /** The template's memory, mapped copy-on-write: the file is never written to. */
  readonly memoryPath: string;
  /**
   * Whether this QEMU can open the file for reading only (`readonly=on,rom=off`, QEMU 8.2). An earlier
   * one opens it for writing too, and writes nothing, as the mapping is private.
   */
  readonly readOnlyMemory: boolean;
}

/** Everything that QEMU is told. Validated by whoever made it. */
export interface MachineConfig {
  /** In `-name`, by which gc recognises the process. */
  readonly id: string;
  readonly machine: MachineType;
  readonly accel: Accel;
  readonly vcpus: number;
  readonly memoryMib: number;
  /** What the guest starts from. */
  readonly start: ColdStart | CloneStart;
  readonly disk: {
    /** qcow2 overlay. */
    readonly path: string;
    /**
     * Read-only qcow2 files under it, the nearest first. Named here, so that what the headers say does
     * not count.
     */
    readonly backingPaths: readonly string[];
    /** The file never grows past this; it must be that long already, holes included. */
    readonly boundBytes?: number | undefined;
    /** How its files are read and written: `disk-aio.ts`. */
    readonly aio: DiskAio;
    /** The disk dies with the VM: flushes need not reach the host's disk. */
    readonly disposable: boolean;
  };
  readonly channel: ChannelConfig;
  /** Undefined: the VM was made, or its template was, when VMs had no network device. */
  readonly nic?: NicConfig | undefined;
  /** First QMP server: ours. */
  readonly qmpSocketPath: string;
  /** Second QMP server: for people. */
  readonly monitorSocketPath: string;
  readonly consoleSocketPath: string;
  readonly consoleLogPath: string;
}

/** Node name of the VM's disk, for QMP. */
export const DISK_NODE = 'disk';
/** Node name of its file. */
export const DISK_FILE_NODE = 'disk-file';
/** Node name of what keeps the file within a quota; see `disk-bound.ts`. */
export const BOUND_NODE = 'disk-bound';
/** qdev id of the VM's disk; BLOCK_IO_ERROR events carry its path. */
export const DISK_DEVICE = 'disk0';
/** qdev id of the VM's network device. */
export const NIC_DEVICE = 'nic0';
/** Id of what it is joined to. */
export const NETDEV = 'net0';

/** Value of `-name`: the word by which a VM's process is found in /proc. */
export function processName(id: string): string {
  return `qmp-agent-${id}`;
}

/** Arguments after the program's name. */
export function buildArgv(config: MachineConfig): string[] {
  return [
    '-nodefaults',
    '-no-user-config',
    ...['-display', 'none'],
    '-no-reboot',
    ...['-name', processName(config.id)],
    ...sandbox(),
    ...machine(config),
    ...boot(config),
    ...monitors(config),
    ...serialConsole(config),
    ...disk(config),
    ...entropy(config),
    ...channel(config),
    ...panicDevice(config),
    ...nic(config), // the last, so that the others are where they were before there was one
  ];
}

/** A value inside an option list: QEMU splits at commas, and reads two as one. */
export function escapeValue(value: string): string {
  return value.replaceAll(',', ',,');
}

/** `driver,key=value,…`; undefined members are left out, booleans become on/off. */
export function optionList(
  first: string,
  members: Readonly<Record<string, string | number | boolean | undefined>> = {},
): string {
  const parts = Object.entries(members).flatMap(([key, value]) => {
    if (value === undefined) return [];
    const text = typeof value === 'boolean' ? (value ? 'on' : 'off') : escapeValue(String(value));
    return [`${key}=${text}`];
  });
  return [first, ...parts].join(',');
}

/**
 * QEMU's own seccomp filter. `spawn=deny` rules out `exec:` migration URIs;
 * `elevateprivileges=deny` works as nothing is dropped after the start.
 */
function sandbox(): string[] {
  const denied = {
    obsolete: 'deny',
    elevateprivileges: 'deny',
    spawn: 'deny',
    resourcecontrol: 'deny',
  };
  return ['-sandbox', optionList('on', denied)];
}

/**
 * The emulated processor: all that QEMU has, less what is dear to emulate. Told of "enhanced rep movsb"
 * (erms, fsrm), kernel and libc clear and copy memory byte by byte, each byte a turn of an emulated
 * loop; and five levels of page tables (la57) are one more to walk at each miss. A boot takes some 8 %
 * less without.
 */
export const TCG_CPU = 'max,-erms,-fsrm,-la57';

/**
 * What TCG keeps of translated code, MiB. Left to itself it takes up to an eighth of the host's memory: a
 * VM that had run Node a few times held 550 MiB. With 64 it works 5 % slower, with 32 by half.
 */
const TCG_CACHE_MIB = 128;

function machine(config: MachineConfig): string[] {
  const facts = machineFacts(config.machine);
  const { accel } = config;
  // With several vCPUs under thread=multi, guests that patch their own code die at random (design.md).
  const thread = config.vcpus > 1 ? 'single' : undefined;
  return [
    ...['-machine', `${facts.machineArg},memory-backend=ram`],
    ...['-accel', optionList(accel, accel === 'tcg' ? { thread, 'tb-size': TCG_CACHE_MIB } : {})],
    ...['-cpu', config.accel === 'kvm' ? 'host' : TCG_CPU],
    ...['-smp', optionList(String(config.vcpus), { sockets: 1, cores: config.vcpus, threads: 1 })],
    ...['-m', `${config.memoryMib}M`],
    ...['-object', memory(config)],
  ];
}

function memory({ start, memoryMib }: MachineConfig): string {
  const size = `${memoryMib}M`;
  if (start.kind === 'cold') return optionList('memory-backend-ram', { id: 'ram', size });
  return optionList('memory-backend-file', {
    id: 'ram',
    size,
    'mem-path': start.memoryPath,
    share: false,
    // Without rom=off, readonly=on would be a ROM to the guest (docs/system/vm-templating.rst).
    readonly: start.readOnlyMemory ? true : undefined,
    rom: start.readOnlyMemory ? 'off' : undefined,
  });
}

function boot({ start }: MachineConfig): string[] {
  if (start.kind === 'clone') return ['-incoming', 'defer'];
  const { kernelPath, initramfsPath, cmdline } = start;
  return ['-kernel', kernelPath, '-initrd', initramfsPath, '-append', cmdline];
}

function monitors(config: MachineConfig): string[] {
  const server = (id: string, path: string) => [
    ...['-chardev', optionList('socket', { id, path, server: true, wait: false })],
    ...['-mon', optionList(`chardev=${id}`, { mode: 'control' })],
  ];
  return [...server('qmp', config.qmpSocketPath), ...server('monitor', config.monitorSocketPath)];
}

/** `logappend` opens the log with O_APPEND, on which the bound of `bounded-log.ts` rests. */
function serialConsole(config: MachineConfig): string[] {
  const chardev = optionList('socket', {
    id: 'console',
    path: config.consoleSocketPath,
    server: true,
    wait: false,
    logfile: config.consoleLogPath,
    logappend: true,
  });
  return ['-chardev', chardev, '-serial', 'chardev:console'];
}

function disk(config: MachineConfig): string[] {
  const noFlush = config.disk.disposable;
  const file = (node: string, filename: string, readOnly: boolean) =>
    optionList('driver=file', {
      'node-name': node,
      filename,
      aio: config.disk.aio,
      discard: 'unmap',
      'read-only': readOnly,
      'cache.no-flush': noFlush,
    });
  const format = (node: string, fileNode: string, readOnly: boolean, backing?: string) =>
    optionList('driver=qcow2', {
      'node-name': node,
      file: fileNode,
      backing,
      discard: readOnly ? undefined : 'unmap',
      'read-only': readOnly,
      'cache.no-flush': noFlush,
    });
  // The deepest first, as each names the one below it.
  const backing = config.disk.backingPaths.toReversed().flatMap((path, index) => {
    const below = index === 0 ? undefined : `base${index - 1}`;
    return [
      ...['-blockdev', file(`base${index}-file`, path, true)],
      ...['-blockdev', format(`base${index}`, `base${index}-file`, true, below)],
    ];
  });
  const nearest = `base${config.disk.backingPaths.length - 1}`;
  // A file of a fixed size, as a partition would be: qcow2 gets ENOSPC where it would grow past it.
  const { boundBytes } = config.disk;
  const bound = optionList('driver=raw', {
    'node-name': BOUND_NODE,
    file: DISK_FILE_NODE,
    size: boundBytes,
    discard: 'unmap',
    'cache.no-flush': noFlush,
  });
  const isBound = boundBytes !== undefined;
  return [
    ...backing,
    ...['-blockdev', file(DISK_FILE_NODE, config.disk.path, false)],
    ...(isBound ? ['-blockdev', bound] : []),
    '-blockdev',
    format(DISK_NODE, isBound ? BOUND_NODE : DISK_FILE_NODE, false, nearest),
    '-device',
    // A full host disk, or quota, pauses the VM and says so, instead of breaking the guest's file system.
    virtio('virtio-blk', config, {
      id: DISK_DEVICE,
      drive: DISK_NODE,
      werror: 'enospc',
      rerror: 'report',
    }),
  ];
}

function entropy(config: MachineConfig): string[] {
  return [
    ...['-object', optionList('rng-builtin', { id: 'rng' })],
    ...['-device', virtio('virtio-rng', config, { id: 'rng0', rng: 'rng' })],
  ];
}

/** `id` of a virtio-serial channel's chardev. */
export function chardevOfChannel(index: number): string {
  return `ch${index}`;
}

/** `id` of a virtio-serial channel's port. */
export function portOfChannel(index: number): string {
  return `port${index}`;
}

function channel(config: MachineConfig): string[] {
  const { channel } = config;
  if (channel.kind === 'vsock') {
    const vsock = virtio('vhost-vsock', config, { id: 'vsock0', 'guest-cid': channel.cid });
    return ['-device', vsock];
  }
  const controller = virtio('virtio-serial', config, {
    id: 'channels',
    max_ports: channel.socketPaths.length + 1, // port 0 is set aside for a console
  });
  return [
    ...['-device', controller],
    ...channel.socketPaths.flatMap((path, index) => {
      const id = chardevOfChannel(index);
      const port = optionList('virtserialport', {
        id: portOfChannel(index), // without one, QEMU tells nobody when the guest closes it
        bus: 'channels.0',
        nr: index + 1,
        chardev: id,
        name: `${VIRTIO_PORT_PREFIX}.${index}`,
      });
      return [
        ...['-chardev', optionList('socket', { id, path, server: true, wait: false })],
        ...['-device', port],
      ];
    }),
  ];
}

/** How a guest reports a panic by itself, and learns that it was cloned. */
function panicDevice(config: MachineConfig): string[] {
  const facts = machineFacts(config.machine);
  return [
    ...(facts.pvpanicDevice === undefined ? [] : ['-device', facts.pvpanicDevice]),
    ...(facts.vmgenid ? ['-device', optionList('vmgenid', { guid: 'auto' })] : []),
  ];
}

/**
 * The network device, and what it is joined to. QEMU warns of one that is joined to nothing, in its log;
 * else there is nothing wrong with it.
 */
function nic(config: MachineConfig): string[] {
  if (config.nic === undefined) return [];
  const { mac, netdev } = config.nic;
  const isPci = machineFacts(config.machine).bus === 'pci';
  const device = virtio('virtio-net', config, {
    id: NIC_DEVICE,
    netdev: netdev.kind === 'none' ? undefined : NETDEV,
    mac,
    romfile: isPci ? '' : undefined, // nobody boots from a network
    // The agent makes a guest that goes on elsewhere known. The kernel's own announcement waits in a loop for
    // the device, on the one processor there is, just when that device has been loaded.
    guest_announce: 'off',
  });
  return [...netdevArgs(netdev), '-device', device];
}

function netdevArgs(netdev: NetdevConfig): string[] {
  switch (netdev.kind) {
    case 'none':
      return [];
    case 'user':
      return ['-netdev', optionList('user', { id: NETDEV, ipv6: false })];
    case 'tap':
      return [
        '-netdev',
        optionList('tap', {
          id: NETDEV,
          ifname: netdev.ifname,
          script: 'no',
          downscript: 'no',
          vhost: false,
          // Else the device could do more than one without a tap, and no clone could have the other.
          // And the host's kernel reads no header that an untrusted guest has made.
          vnet_hdr: false,
        }),
      ];
  }
}

function virtio(
  name: string,
  config: MachineConfig,
  members: Readonly<Record<string, string | number | undefined>>,
): string {
  return optionList(`${name}-${machineFacts(config.machine).virtioSuffix}`, members);
}
