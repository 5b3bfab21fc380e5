/** Disks of VMs. */
export { allocatedBytes } from './allocated.ts';
export { createOverlay, diskBytesOf, extendTo, usedBytes } from './overlay.ts';
export { readSnapshots, type DiskSnapshot } from './qcow2-snapshots.ts';
