/** From what a VM is configured to be to the machine that QEMU is told to be. Pure. */
import { buildCmdline } from '../../firmware/cmdline.ts';
import type { ModuleGroup } from '../../firmware/modules.ts';
import type { BootFiles } from '../image/index.ts';
import type { TapPlace } from '../network/mode.ts';
import type { Accel } from './api.ts';
import type { CloneStart, ColdStart, MachineConfig } from './argv.ts';
import type { DiskAio } from './disk-aio.ts';
import type { DiskLayers } from './disk-quota.ts';
import { networkOf } from './network-of.ts';
import { isAtLeast } from './launcher.ts';
import type { VmConfig } from './record.ts';
import type { FrozenFiles } from './template/state.ts';
import type { VmPaths } from './vm-paths.ts';

/** virtio-serial ports of a detached VM: that many host processes can talk to it at once. */
export const MAX_PORTS = 4;
/** An ephemeral VM has one owner; but its clones may stay, and serve two. */
const EPHEMERAL_PORTS = 2;
/** First QEMU that maps a memory file copy-on-write without the right to write to it. */
const READ_ONLY_MEMORY_VERSION = [8, 2] as const;

/** A VM, and what it starts from. */
export interface MachineContext {
  readonly id: string;
  readonly paths: VmPaths;
  readonly config: VmConfig;
  /** Its tap, where it has one. */
  readonly place?: TapPlace | undefined;
  /** Kernel and initramfs to boot from, or what a clone goes on from. */
  readonly from: BootFiles | FrozenFiles;
}

/** A disk that nobody needs after the host has crashed. */
function isDisposable({ persistent }: VmConfig): boolean {
  return !persistent;
}

/** What bounds a VM's disk. */
export function boundsOf(vmId: string, { diskPath }: VmPaths, config: VmConfig): DiskLayers {
  const noFlush = isDisposable(config);
  return { vmId, path: diskPath, quotaBytes: config.diskQuotaBytes, noFlush };
}

/** virtio-serial ports; a clone's machine has to look like the template's. */
export function portsOf({ template, persistent }: VmConfig): number {
  return template?.ports ?? (persistent ? MAX_PORTS : EPHEMERAL_PORTS);
}

function startOf(
  { config, from }: MachineContext,
  { accel, tscKhz, version }: { accel: Accel; tscKhz: number | undefined; version: string },
): ColdStart | CloneStart {
  if ('statePath' in from) {
    const readOnlyMemory = isAtLeast(version, READ_ONLY_MEMORY_VERSION);
    return { kind: 'clone', memoryPath: from.memoryPath, readOnlyMemory };
  }
  const { machine, hostname, channel } = config;
  const modules: ModuleGroup[] = config.network === undefined ? ['rng'] : ['rng', 'net'];
  const words = { machine, accel, hostname, channel, modules, tscKhz };
  return { kind: 'cold', ...from, cmdline: buildCmdline({ ...words, extra: config.kernelArgs }) };
}

/** The machine that QEMU is told to be. */
export function machineConfig(
  context: MachineContext,
  o: {
    accel: Accel;
    cid: number | undefined;
    ports: number;
    tscKhz: number | undefined;
    version: string;
    aio: DiskAio;
    boundBytes: number | undefined;
  },
): MachineConfig {
  const { id, paths, config } = context;
  const { machine, vcpus, memoryMib, template } = config;
  const { accel, cid, ports } = o;
  return {
    id,
    machine,
    accel,
    vcpus,
    memoryMib,
    start: startOf(context, o),
    disk: {
      path: paths.diskPath,
      backingPaths: template?.diskPaths ?? [config.rootfsPath],
      boundBytes: o.boundBytes,
      aio: o.aio,
      disposable: isDisposable(config),
    },
    channel:
      cid !== undefined
        ? { kind: 'vsock', cid }
        : {
            kind: 'virtio-serial',
            socketPaths: Array.from({ length: ports }, (_, i) => paths.channelSocketPath(i)),
          },
    nic: networkOf(id, config, context.place)?.nic,
    qmpSocketPath: paths.qmpSocketPath,
    monitorSocketPath: paths.monitorSocketPath,
    consoleSocketPath: paths.consoleSocketPath,
    consoleLogPath: paths.consoleLogPath,
  };
}
