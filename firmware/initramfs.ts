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
  readonly modules: readonly BootModule[];
  /** Names of modules that we ask for and the kernel has built in: no error for modprobe. */
  readonly builtIn: readonly string[];
}

/** One kernel module of the boot part. */
export interface BootModule {
  readonly name: string;
  /** Names of the modules that it needs. */
  readonly needs: readonly string[];
  /** Contents, decompressed. */
  readonly data: Buffer;
  /** Loaded after the switch to the root disk, so it goes where the init finds it then. */
  readonly late: boolean;
}

/** Entries of the boot part. busybox's modprobe reads the text form of `modules.dep`. */
export function bootEntries(part: BootPart): CpioEntry[] {
  const modulesDir = `lib/modules/${part.kernelVersion}`;
  const dep = part.modules
    .map(({ name, needs }) => `${name}.ko:${needs.map((need) => ` ${need}.ko`).join('')}\n`)
    .join('');
  const builtIn = part.builtIn.map((name) => `kernel/${name}.ko\n`).join('');
  return [
    ...['bin', 'dev', 'etc', 'lib', 'lib/modules', modulesDir, 'newroot', 'proc', 'run', 'sys'].map(
      (name) => directory(name),
    ),
    charDevice('dev/console', 5, 1),
    charDevice('dev/null', 1, 3, 0o666),
    file('bin/busybox', part.busybox, 0o755),
    symlink('bin/sh', 'busybox'),
    ...part.modules.map(({ name, data }) => file(`${modulesDir}/${name}.ko`, data)),
    directory('agent'),
    directory('agent/late'),
    ...part.modules
      .filter(({ late }) => late)
      .map(({ name, data }) => file(`agent/late/${name}.ko`, data)),
    file(`${modulesDir}/modules.dep`, Buffer.from(dep)),
    file(`${modulesDir}/modules.builtin`, Buffer.from(builtIn)),
  ];
}

const PAGE_BYTES = 4096;
/** What the last page of an initramfs holds: a word, the least that the kernel's unpacker takes. */
const LAST_PAGE_BYTES = 4;

/**
 * Zeros to append to an initramfs of so many bytes. QEMU puts it at the end of a microvm's memory, its
 * begin at a page's, and the firmware has laid its ACPI tables there, at the very end: a last page that is
 * full overwrites them, and the guest finds no device at all. (QEMU's hw/i386/x86.c: a microvm reserves
 * nothing for them, as other machines do.)
 */
export function initramfsPadding(bytes: number): number {
  return (PAGE_BYTES + LAST_PAGE_BYTES - (bytes % PAGE_BYTES)) % PAGE_BYTES;
}

/** Mounts that the init makes on the new root before it switches to it (fstab(5) lines). */
const ROOT_MOUNTS = `proc /newroot/proc proc nosuid,nodev,noexec 0 0
sys /newroot/sys sysfs nosuid,nodev,noexec 0 0
dev /newroot/dev devtmpfs nosuid,mode=755 0 0
run /newroot/run tmpfs nosuid,nodev,mode=755 0 0
tmp /newroot/tmp tmpfs nosuid,nodev,mode=1777 0 0
`;
/** Mounts that the init makes afterwards. `favordynmods` makes moving processes into cgroups cheap (Linux 6.0). */
const SYSTEM_MOUNTS = `devpts /dev/pts devpts nosuid,noexec,gid=5,mode=620,ptmxmode=666 0 0
shm /dev/shm tmpfs nosuid,nodev,mode=1777 0 0
cgroup /sys/fs/cgroup cgroup2 nosuid,nodev,noexec,favordynmods 0 0
`;
/** What acpid runs when the power button is pressed: pid 1 brings the guest down. */
const POWER_BUTTON = '#!/run/qmp-agent/busybox sh\nkill -USR2 1\n';

/** What our part is made of. */
export interface AgentPart {
  /** `firmware/init/init`. */
  readonly init: Buffer;
  readonly agent: readonly { name: string; mode: number; data: Buffer }[];
}

/** Entries of our part. */
export function agentEntries(part: AgentPart): CpioEntry[] {
  return [
    file('init', part.init, 0o755),
    file('mounts', Buffer.from(ROOT_MOUNTS)),
    file('agent/mounts', Buffer.from(SYSTEM_MOUNTS)),
    directory('agent/acpi'),
    directory('agent/acpi/PWRF'),
    file('agent/acpi/PWRF/00000080', Buffer.from(POWER_BUTTON), 0o755),
    ...part.agent.map(({ name, mode, data }) => file(`agent/${name}`, data, mode)),
  ];
}
