/** Where the files of one VM are. Pure. */
import { join } from 'node:path';
import { HostError } from '../errors.ts';
import type { StatePaths } from './api.ts';

/** `struct sockaddr_un` has 108 bytes, one of them for the final zero: unix(7). */
export const MAX_SOCKET_PATH_BYTES = 107;

/** Files of one VM: what lasts in `dir`, sockets in `runtimeDir`. */
export interface VmPaths {
  readonly dir: string;
  readonly recordPath: string;
  readonly diskPath: string;
  /** Descriptions of snapshots; missing where none has one. */
  readonly snapshotsPath: string;
  readonly consoleLogPath: string;
  readonly qemuLogPath: string;
  /** What it did on the network, where it has a tap. */
  readonly networkLogPath: string;
  /** Held around changes of state. */
  readonly lockPath: string;
  /** Held by whoever talks to the first QMP server of a detached VM. */
  readonly qmpLockPath: string;
  /** Held by whoever talks through that virtio-serial port. */
  channelLockPath(index: number): string;
  readonly runtimeDir: string;
  readonly qmpSocketPath: string;
  readonly monitorSocketPath: string;
  readonly consoleSocketPath: string;
  channelSocketPath(index: number): string;
}

/** Directory of all VMs' directories. */
export function vmsDir(paths: StatePaths): string {
  return join(paths.dataDir, 'vms');
}

/** Directory of the instants at which VMs were forked. */
export function checkpointsDir(paths: StatePaths): string {
  return join(paths.dataDir, 'checkpoints');
}

/** Files of the VM with this id. */
export function vmPaths(paths: StatePaths, id: string): VmPaths {
  const dir = join(vmsDir(paths), id);
  const runtimeDir = join(paths.runtimeDir, id);
  return {
    dir,
    recordPath: join(dir, 'vm.json'),
    diskPath: join(dir, 'disk.qcow2'),
    snapshotsPath: join(dir, 'snapshots.json'),
    consoleLogPath: join(dir, 'console.log'),
    qemuLogPath: join(dir, 'qemu.log'),
    networkLogPath: join(dir, 'network.log'),
    lockPath: join(dir, 'lock'),
    qmpLockPath: join(dir, 'qmp.lock'),
    channelLockPath: (index) => join(dir, `channel-${index}.lock`),
    runtimeDir,
    qmpSocketPath: join(runtimeDir, 'qmp.sock'),
    monitorSocketPath: join(runtimeDir, 'monitor.sock'),
    consoleSocketPath: join(runtimeDir, 'console.sock'),
    channelSocketPath: (index) => join(runtimeDir, `ch${index}.sock`),
  };
}

/** The longest socket path of a VM; all others are no longer. */
const LONGEST_SOCKET = 'monitor.sock';

/** @throws HostError ERR_HOST_SOCKET where the runtime directory is too deep for unix sockets */
export function checkSocketPaths(paths: StatePaths, id: string): void {
  const longest = join(paths.runtimeDir, id, LONGEST_SOCKET);
  const length = Buffer.byteLength(longest);
  if (length <= MAX_SOCKET_PATH_BYTES) return;
  throw new HostError(
    'ERR_HOST_SOCKET',
    `socket path ${longest} has ${length} bytes; a unix socket path can have ${MAX_SOCKET_PATH_BYTES}`,
    {
      hint: 'Set state.runtimeDir (QMP_AGENT_STATE_RUNTIME_DIR) to a shorter directory.',
      vmId: id,
    },
  );
}
