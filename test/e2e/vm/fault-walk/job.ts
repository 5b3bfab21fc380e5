/** What goes over the pipes between a test and its runner. */
import type { Operation } from '../../../../src/steps.ts';
import type { StatePaths } from '../../../../src/vm/api.ts';

/** What a runner can be told to do. */
export type Work =
  | 'clone'
  | 'fork'
  | 'snapshot.create'
  | 'snapshot.restore'
  | 'suspend'
  | 'resume'
  | 'pool.reset'
  | 'pool.release';

/** A step of an operation. */
export interface Place {
  readonly operation: Operation;
  readonly step: string;
}

/** One piece of work. */
export interface Job {
  readonly what: Work;
  readonly paths: StatePaths;
  readonly template: string;
  /** The VM that it is done to, where it is. */
  readonly vmId: string;
  /** What stands in that VM's file, and so in a child's. */
  readonly word: string;
  /** Of a snapshot. */
  readonly name: string;
  /** Whether clones and children are to outlive the runner. */
  readonly persistent?: boolean;
  readonly timeoutMs: number;
  /** Where to stand still, once. */
  readonly at?: Place | undefined;
}

/** A step that was passed. */
export interface Passed extends Place {
  readonly vmId: string;
}

/** What a runner tells. `failed`: with the code of one of our own errors, or none. */
export type Told =
  | { readonly kind: 'ready' }
  | ({ readonly kind: 'step' | 'at' } & Passed)
  | { readonly kind: 'done'; readonly ms: number }
  | {
      readonly kind: 'failed';
      readonly ms: number;
      readonly code: string | undefined;
      readonly text: string;
    };
