/** Pools of VMs that stand ready. */
export { MemoryLedger, type MemoryClaim, type MemoryGrant } from './memory.ts';
export { VmPool } from './pool.ts';
export type * from './types.ts';
