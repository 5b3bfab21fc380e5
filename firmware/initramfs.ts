/**
 * What is in an initramfs. Two archives one after the other: the boot part (busybox and kernel
 * modules, made once per kernel) and ours (init and agent, made once per version of this program).
 */
import { charDevice, directory, file, symlink, type CpioEntry } from './cpio.ts';

/** Contents of the boot part. */
export interface BootPart {
  readonly kernelVersion: string;
  /** Static busybox. */
  readonly busybox: Buffer;
  /** Decompressed modules; `needs` names the modules that each needs. */
  readonly modules: readonly { name: string; needs: readonly string[]; data: Buffer }[];
}

/** Directory of the agent's files, in the initramfs and in the guest. */
export const AGENT_DIR = 'run/qmp-agent';

/** Entries of the boot part. busybox's modprobe reads the text form of `modules.dep`. */
export function bootEntries(part: BootPart): CpioEntry[] {
  const modulesDir = `lib/modules/${part.kernelVersion}`;
  const dep = part.modules
    .map(({ name, needs }) => `${name}.ko:${needs.map((need) => ` ${need}.ko`).join('')}\n`)
    .join('');
  return [
    ...['bin', 'dev', 'etc', 'lib', 'lib/modules', modulesDir, 'newroot', 'proc', 'run', 'sys'].map(
      (name) => directory(name),
    ),
    charDevice('dev/console', 5, 1),
    charDevice('dev/null', 1, 3, 0o666),
    file('bin/busybox', part.busybox, 0o755),
    symlink('bin/sh', 'busybox'),
    ...part.modules.map(({ name, data }) => file(`${modulesDir}/${name}.ko`, data)),
    file(`${modulesDir}/modules.dep`, Buffer.from(dep)),
  ];
}

/** Entries of our part. */
export function agentEntries(
  init: Buffer,
  agent: readonly { name: string; mode: number; data: Buffer }[],
): CpioEntry[] {
  return [
    file('init', init, 0o755),
    directory('agent'),
    ...agent.map(({ name, mode, data }) => file(`agent/${name}`, data, mode)),
  ];
}
