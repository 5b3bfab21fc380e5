/** KVM or software emulation: what this host can do, and why not. */
import { readFile } from 'node:fs/promises';
import { HostError } from '../errors.ts';
import { openError } from '../host-files.ts';
import { warnOnce } from '../host-warning.ts';
import type { Accel, AccelChoice } from './api.ts';

const KVM_DEVICE = '/dev/kvm';
/** ioctl-free test for vhost-vsock: the node is there and opens. */
const VHOST_VSOCK_DEVICE = '/dev/vhost-vsock';

/** What decides; read from the host by {@link probeKvm}, given by tests. */
export interface KvmFacts {
  /** errno name from opening /dev/kvm for writing; undefined where it opens. */
  readonly openError: string | undefined;
  /** Whether /proc/cpuinfo shows vmx or svm. */
  readonly cpuFlag: boolean;
}

/** Why KVM cannot work, and what to do; undefined where nothing speaks against it. */
export function kvmObstacle(facts: KvmFacts): { message: string; hint: string } | undefined {
  if (facts.openError === 'ENOENT') {
    return {
      message: `${KVM_DEVICE} does not exist`,
      hint: 'Load the module (`modprobe kvm_intel` or `kvm_amd`), and enable virtualisation in the firmware or, inside a VM, nested virtualisation.',
    };
  }
  if (facts.openError === 'EACCES' || facts.openError === 'EPERM') {
    return {
      message: `no permission to open ${KVM_DEVICE}`,
      hint: 'Join its group (`sudo usermod -aG kvm "$USER"`), log in anew, or run as root.',
    };
  }
  if (facts.openError !== undefined) {
    return {
      message: `${KVM_DEVICE} cannot be opened (${facts.openError})`,
      hint: 'See `dmesg | grep -i kvm`: often another hypervisor holds the CPU, or the firmware has virtualisation switched off.',
    };
  }
  if (!facts.cpuFlag) {
    return {
      message: `${KVM_DEVICE} opens, but the CPU shows neither vmx nor svm`,
      hint: 'Enable virtualisation in the firmware; inside a VM or container, ask for nested virtualisation.',
    };
  }
  return undefined;
}

let probed: Promise<KvmFacts> | undefined;

/** Looks at the host; once a process. */
export function probeKvm(): Promise<KvmFacts> {
  probed ??= (async () => {
    const [failure, cpuinfo] = await Promise.all([
      openError(KVM_DEVICE),
      readFile('/proc/cpuinfo', 'utf8').catch(() => ''),
    ]);
    return { openError: failure, cpuFlag: /^flags\s*:.*\b(vmx|svm)\b/m.test(cpuinfo) };
  })();
  return probed;
}

/**
 * Which accelerator to start with.
 * @throws HostError ERR_HOST_KVM KVM was asked for and cannot work; the message says why
 */
export function chooseAccel(choice: AccelChoice, facts: KvmFacts): Accel {
  if (choice === 'tcg') return 'tcg';
  const obstacle = kvmObstacle(facts);
  if (obstacle === undefined) return 'kvm';
  if (choice === 'kvm') throw kvmError(obstacle.message, obstacle.hint);
  warnAboutTcg(obstacle.message, obstacle.hint);
  return 'tcg';
}

/** The error for a host that cannot do KVM. */
export function kvmError(message: string, hint?: string): HostError {
  return new HostError('ERR_HOST_KVM', `KVM cannot be used: ${message}`, {
    hint: hint ?? 'Run `qmp-agent doctor`, or use --accel tcg (much slower).',
  });
}

/** Announces once a process that `auto` came down to software emulation. */
export function warnAboutTcg(why: string, hint?: string): void {
  warnOnce('accel.tcg', {
    code: 'accel.tcg',
    message: `VMs run under software emulation (TCG), some 10 times slower: ${why}`,
    hint,
  });
}

/** Whether QEMU's stderr says that KVM could not be initialised: what only the start itself can show. */
export function isKvmFailure(stderr: string): boolean {
  return /failed to initialize kvm|could not access kvm|ioctl\(KVM_CREATE_VM\) failed|invalid accelerator kvm/i.test(
    stderr,
  );
}

/** Whether this host offers vsock to guests. */
export async function hasVhostVsock(): Promise<boolean> {
  return (await openError(VHOST_VSOCK_DEVICE)) === undefined;
}
