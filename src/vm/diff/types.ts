/** What is compared, and what has come of it. Types only. */
import type { FileChange } from '../../storage/index.ts';
import type { WaitOptions } from '../wait-options.ts';

export type { FileAspect, FileChange, FileFacts, FileType } from '../../storage/index.ts';

/** One side of a diff. */
export interface CheckpointRef {
  readonly kind: 'vm' | 'template' | 'image' | 'checkpoint';
  /** 12 hex digits. */
  readonly id: string;
  readonly name?: string | undefined;
  /** Of a VM: the snapshot in it. Undefined: as it is now. */
  readonly snapshot?: string | undefined;
}

/** What has changed from one checkpoint to another. */
export interface CheckpointDiff {
  readonly before: CheckpointRef;
  readonly after: CheckpointRef;
  /** In the order of the paths' bytes. */
  readonly changes: readonly FileChange[];
}

/** Options of `vm.diff`. */
export interface VmDiffOptions extends WaitOptions {
  /**
   * From where: as `diffCheckpoints` has it; `@NAME` is a snapshot of this VM. Default: what its disk
   * stands on, which is its template, its image, or the point at which it was forked.
   */
  readonly from?: string | undefined;
}
