/** The lab's QEMU command line. Pure. */
import type { DataDisk } from './data-disks.ts';
import type { RootDisk } from './root-disk.ts';

export interface LabMachine {
  root: RootDisk;
  disks: readonly DataDisk[];
  /** Directory shared as `job`. */
  jobDir: string;
  /** Directory of the sockets `stdout`, `stderr` and `control`, on which the caller listens. */
  socketDir: string;
  consolePath: string;
  memoryMib: number;
  vcpus: number;
  interactive: boolean;
}

/**
 * `-cpu max` under TCG offers nested SVM, with which the lab's own KVM works. One vCPU by default:
 * with several under multi-threaded TCG kernel 6.12 panics at random when it patches its own code
 * (docs/lab.md). Every disk is opened as a snapshot: what the lab writes is gone with it.
 */
export function labArgv(o: LabMachine): string[] {
  const argv = [
    'qemu-system-x86_64',
    ...['-name', 'qmp-agent-lab', '-nodefaults', '-no-user-config', '-display', 'none'],
    ...['-machine', 'q35,usb=off,vmport=off', '-cpu', 'max'],
    ...['-accel', `tcg,thread=${o.vcpus > 1 ? 'single' : 'multi'}`],
    ...['-smp', String(o.vcpus), '-m', `${o.memoryMib}M`],
    // A panic ends QEMU at once; so does the lab's power-off.
    '-no-reboot',
    ...['-kernel', o.root.kernelPath, '-initrd', o.root.initramfsPath],
    ...[
      '-append',
      'console=ttyS0 panic=-1 oops=panic quiet loglevel=5 mitigations=off norandmaps nokaslr tsc=reliable random.trust_cpu=on',
    ],
    ...['-chardev', `file,id=console,path=${escape(o.consolePath)}`, '-serial', 'chardev:console'],
    // event_idx=off: an interrupt for every write of the host, even where the one before it got lost.
    ...['-device', 'virtio-rng-pci', '-device', 'virtio-serial-pci,event_idx=off'],
    ...[
      '-virtfs',
      `local,path=${escape(o.jobDir)},mount_tag=job,security_model=none,multidevs=remap`,
    ],
  ];
  for (const path of [o.root.diskPath, ...o.disks.map((disk) => disk.path)]) {
    argv.push('-drive', `file=${escape(path)},format=raw,if=virtio,snapshot=on,cache=unsafe`);
  }
  if (o.interactive) {
    argv.push('-chardev', 'stdio,id=terminal,signal=off');
    argv.push('-device', 'virtconsole,chardev=terminal');
  }
  for (const name of o.interactive ? ['control'] : ['control', 'stdout', 'stderr']) {
    argv.push('-chardev', `socket,id=${name},path=${escape(`${o.socketDir}/${name}`)}`);
    argv.push('-device', `virtserialport,chardev=${name},name=lab.${name}`);
  }
  return argv;
}

/** QEMU's option parser takes a doubled comma as a comma. */
function escape(value: string): string {
  return value.replaceAll(',', ',,');
}
