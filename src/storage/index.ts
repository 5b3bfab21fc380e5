/** Disks of VMs. */
export { allocatedBytes } from './allocated.ts';
export { createOverlay, diskBytesOf, extendTo, usedBytes } from './overlay.ts';
export { readSnapshots, type DiskSnapshot } from './qcow2-snapshots.ts';
export {
  compareVolumes,
  type FileAspect,
  type FileChange,
  type FileFacts,
} from './compare-volumes.ts';
export { DiskFiles, DiskReader, type DiskLayer } from './disk-reader.ts';
export { Ext4Volume } from './ext4/volume.ts';
export type { FileType } from './ext4/inode.ts';
