/** What templates are. Types only. */
import type { MachineType } from '../../../firmware/machine.ts';
import type { Accel, NetworkMode } from '../api.ts';
import type { MemoryPlace } from './memory-dir.ts';

export type { MemoryMedium, MemoryPlace } from './memory-dir.ts';

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
  /** Of clones for which nothing else is asked. Undefined: they have no network device. */
  readonly network: NetworkMode | undefined;
  /** Whether they have IPv6, too; undefined: they have none. */
  readonly ipv6: boolean | undefined;
  /** Only this version of QEMU can load it. */
  readonly qemuVersion: string;
  /** The guest's processor: only the same can go on with it. */
  readonly cpu: string | undefined;
  /** Bytes that it takes on the host. */
  readonly usedBytes: number;
  /** Names or ids of the VMs that stand on it, and templates. */
  readonly usedBy: readonly string[];
  readonly dir: string;
  /** Where its memory is, if not in {@link dir}. */
  readonly memoryPlace: MemoryPlace | undefined;
  readonly defect?: undefined;
}

/** What has a template's place and cannot be used. */
export interface BrokenTemplate {
  readonly name: string;
  /** What is wrong with it. */
  readonly defect: string;
  readonly usedBytes: number;
  readonly usedBy: readonly string[];
  readonly dir: string;
  /** Where its memory is, if not in {@link dir}. */
  readonly memoryPlace: MemoryPlace | undefined;
}
