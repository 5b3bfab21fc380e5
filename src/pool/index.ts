/** Pools of VMs that stand ready. */
export { VmPool } from './pool.ts';
export type * from './types.ts';
