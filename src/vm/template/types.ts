/** What templates are. Types only. */
import type { MachineType } from '../../../firmware/machine.ts';
import type { Accel, CreateStep, StateOptions, WaitOptions } from '../api.ts';

/** A template: memory, devices and disk of a machine at one instant, which clones go on from. */
export interface TemplateInfo {
  readonly name: string;
  /** 12 hex digits. Another template of the same name has another. */
  readonly id: string;
  /** ISO 8601, host clock. */
  readonly createdAt: string;
  readonly image: string;
  readonly vcpus: number;
  readonly memoryMib: number;
  readonly diskBytes: number;
  readonly machine: MachineType;
  readonly accel: Accel;
  readonly channel: 'vsock' | 'virtio-serial';
  /** Only this version of QEMU can load it. */
  readonly qemuVersion: string;
  /** The host's processor, where the guest's is the same (KVM). */
  readonly cpu: string | undefined;
  /** Bytes that it takes on the host. */
  readonly usedBytes: number;
  /** Names or ids of the VMs that stand on it. */
  readonly usedBy: readonly string[];
  readonly dir: string;
}

/** What a clone may have of its own. All of it is optional. */
export interface VmCloneOptions extends StateOptions, WaitOptions {
  /** As `VmCreateOptions.name`. */
  name?: string | undefined;
  /** Guest hostname. Default: the name, else the id. */
  hostname?: string | undefined;
  /** As `VmCreateOptions.persistent`. Default false. */
  persistent?: boolean | undefined;
  /** As `VmCreateOptions.cid`. Default: random. */
  cid?: number | undefined;
  /** QEMU's program. Default: the one in PATH; it must be of the template's version. */
  qemuPath?: string | undefined;
  onProgress?: ((step: CreateStep) => void) | undefined;
}
