/** qmp-agent: commands in throw-away, hardware-isolated virtual machines. */
export * from './errors.ts';
export {
  events,
  type EventOf,
  type EventPayloads,
  type EventStream,
  type EventType,
  type PoolRemovalReason,
  type SystemEvent,
  type TraceKind,
} from './events.ts';
export {
  ImageStore,
  type BootFiles,
  type Image,
  type ImageBuildOptions,
  type ImageBuildResult,
  type ImageFile,
  type ImageImportOptions,
  type ImageManifest,
  type ImageProgress,
  type ImageStoreOptions,
  type ImageVersion,
  type ImageWorkOptions,
  type RecipeInput,
} from './image/index.ts';
export type { CallOptions, GuestExec, GuestOutput, GuestSession } from './guest/index.ts';
export type * from './vm/api.ts';
export type * from './vm/command-types.ts';
export type * from './vm/diff/types.ts';
export type * from './vm/snapshot-types.ts';
export type * from './vm/template/types.ts';
export type * from './vm/usage/types.ts';
export {
  createTemplate,
  diffCheckpoints,
  diskUsage,
  DEFAULT_READY_TIMEOUT_MS,
  openImageStore,
  raiseDiskQuota,
  readTree,
  TemplateStore,
  Vm,
  type TemplateCreateOptions,
  type TemplateStep,
  type TreeNode,
} from './vm/index.ts';
export { STEP_CHANNEL, STEPS, type Operation, type StepMessage, type StepOf } from './steps.ts';
export {
  type ConnectionRecord,
  type DnsRecord,
  listPresets,
  setUpNetwork,
  type TrafficRecord,
  undoNetworkSetup,
} from './network/index.ts';
export { VmPool } from './pool/index.ts';
export type * from './pool/types.ts';
