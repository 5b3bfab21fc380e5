/** What is on the host's disk, and for whom. Types only. All bytes are allocated ones: holes take none. */
import type { DiskSnapshot } from '../../storage/index.ts';
import type { VmState } from '../api.ts';
import type { MemoryPlace } from '../template/memory-dir.ts';

/** One version of an image. */
export interface ImageUsage {
  readonly name: string;
  /** Its directory's name: new VMs stand on the current one, old ones go when nobody does. */
  readonly version: string;
  readonly isCurrent: boolean;
  readonly usedBytes: number;
  /** Names or ids of the VMs that stand on it, and templates. */
  readonly usedBy: readonly string[];
}

/** One template. */
export interface TemplateUsage {
  readonly name: string;
  /** What is wrong with it, where it cannot be used. */
  readonly defect?: string | undefined;
  readonly usedBytes: number;
  readonly memoryBytes: number;
  /** Where the memory is, if not with the rest. */
  readonly memoryPlace?: MemoryPlace | undefined;
  readonly diskBytes: number;
  readonly usedBy: readonly string[];
}

/** One VM. */
export interface VmUsage {
  readonly id: string;
  readonly name: string | undefined;
  readonly state: VmState;
  /** `image NAME` or `template NAME`; undefined where its record is broken. */
  readonly standsOn: string | undefined;
  /** All of it. */
  readonly usedBytes: number;
  /** The overlay, with what its snapshots take. */
  readonly diskBytes: number;
  /** Most that the overlay may take; undefined: no bound. */
  readonly quotaBytes: number | undefined;
  readonly snapshots: readonly DiskSnapshot[];
  /** Console and QEMU's messages. */
  readonly logBytes: number;
  /** Memory and devices of a suspended VM, and what an earlier one has left. */
  readonly suspendedBytes: number;
  /** What else there is: its record, say. */
  readonly otherBytes: number;
}

/** A point at which a VM was forked: what its children stand on. */
export interface CheckpointUsage {
  readonly id: string;
  /** Id of the VM that was forked, which may be gone. */
  readonly forkedFrom: string | undefined;
  readonly usedBytes: number;
  readonly memoryBytes: number;
  readonly diskBytes: number;
  /** Names or ids of the VMs that stand on it. With the last of them it goes. */
  readonly usedBy: readonly string[];
}

/** A directory of something else. */
export interface DirectoryUsage {
  readonly path: string;
  readonly usedBytes: number;
}

/** A way to get space back. */
export interface Reclaimable {
  readonly usedBytes: number;
  /** What does it. */
  readonly command: string;
}

/** All that there is. */
export interface DiskUsage {
  readonly images: readonly ImageUsage[];
  readonly templates: readonly TemplateUsage[];
  readonly vms: readonly VmUsage[];
  readonly checkpoints: readonly CheckpointUsage[];
  /** Logs of builds, what is half made, what nobody knows. */
  readonly others: readonly DirectoryUsage[];
  readonly cache: DirectoryUsage;
  readonly usedBytes: number;
  /** What nobody stands on, nobody runs, or can be made again; the largest first. */
  readonly reclaimable: readonly Reclaimable[];
  readonly reclaimableBytes: number;
}
