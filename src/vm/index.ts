/** Virtual machines. */
export type * from './api.ts';
export type * from './command-types.ts';
export type * from './snapshot-types.ts';
export { diffCheckpoints } from './diff/named.ts';
export type * from './diff/types.ts';
export { DEFAULT_READY_TIMEOUT_MS } from './api.ts';
export { hostTscKhz } from './host-tsc.ts';
export { openImageStore } from './image-store.ts';
export { findQemu } from './launcher.ts';
export {
  createTemplate,
  type TemplateCreateOptions,
  type TemplateStep,
} from './template/create.ts';
export { TemplateStore } from './template/store.ts';
export type * from './template/types.ts';
export { raiseDiskQuota } from './raise-quota.ts';
export { readTree, type TreeNode } from './tree.ts';
export { diskUsage } from './usage/disk-usage.ts';
export type * from './usage/types.ts';
export { Vm } from './vm.ts';
