export {
  createOverlay,
  readQcow2,
  usedBytes,
  type Overlay,
  type OverlayOptions,
} from './overlay.ts';
export { MAX_DISK_BYTES } from './qcow2-header.ts';
