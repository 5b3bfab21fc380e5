/** Disks of VMs. */
export { createOverlay, usedBytes } from './overlay.ts';
