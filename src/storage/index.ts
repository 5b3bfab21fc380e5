/** Disks of VMs. */
export { createOverlay, extendTo, usedBytes } from './overlay.ts';
