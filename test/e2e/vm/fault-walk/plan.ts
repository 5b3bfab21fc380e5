/** Which deaths are tried at which steps. Pure. */
import { STEPS, type Operation } from '../../../../src/steps.ts';
import type { Place, Work } from './job.ts';

/**
 * Who dies: QEMU of the VM that the step is about; that of the VM that is forked; the process that does
 * the operation; the agent in the guest.
 */
export type Victim = 'qemu' | 'source' | 'process' | 'agent';

/** One death. */
export interface Death {
  readonly work: Work;
  readonly at: Place;
  readonly victim: Victim;
}

/** The steps that each work passes, its own first, then those of what it makes use of. */
export const PASSES: Readonly<Record<Work, readonly Operation[]>> = {
  'snapshot.create': ['snapshot.create'],
  'snapshot.restore': ['snapshot.restore'],
  fork: ['fork'],
  suspend: ['suspend'],
  resume: ['resume'],
  clone: ['clone'],
  'pool.reset': ['pool.reset', 'snapshot.restore'],
  'pool.release': ['discard', 'clone'],
};

/** Before these there is no QEMU, or none any more. */
const NO_QEMU: Readonly<Partial<Record<Operation, readonly string[]>>> = {
  clone: ['enter', 'disk', 'launch'],
  fork: ['disk', 'launch'], // of the child
  resume: ['check', 'launch'],
  suspend: ['sweep'],
  discard: ['files'],
};

/** Steps of a fork that are about a child. */
const OF_CHILD = STEPS.fork.slice(STEPS.fork.indexOf('disk'));

/** Steps during or after which something is asked of the agent, or it holds what must not be lost. */
const ASKS_AGENT: Readonly<Partial<Record<Operation, readonly string[]>>> = {
  'snapshot.create': ['save', 'clock'],
  'snapshot.restore': ['reserve', 'load', 'renew'],
  fork: ['enter', 'copy', 'park', 'stop', 'take', 'thaw', 'ready'],
  suspend: ['keep', 'park', 'stop', 'end'],
  resume: ['wake', 'renew', 'record'],
  clone: ['load', 'ready', 'record'],
  'pool.reset': ['check', 'restore', 'warm'],
  discard: ['kill'],
};

/**
 * Of those, where an agent's death meets code of its own; each costs a start of the next one, which is most
 * of what all the others cost together.
 */
const ASKS_AGENT_FIRST: Readonly<Partial<Record<Operation, readonly string[]>>> = {
  'snapshot.create': ['clock'],
  'snapshot.restore': ['renew'],
  fork: ['park', 'ready'],
  suspend: ['park'],
  resume: ['renew'],
  clone: ['ready'],
  'pool.reset': ['warm'],
};

/** All places of a work. */
export function placesOf(work: Work): Place[] {
  return PASSES[work].flatMap((operation) => STEPS[operation].map((step) => ({ operation, step })));
}

/** Who can die there, so that it is a case of its own. */
function victimsAt(work: Work, { operation, step }: Place): Victim[] {
  const isChild = work === 'fork' && (OF_CHILD as readonly string[]).includes(step);
  return [
    'process',
    ...(NO_QEMU[operation]?.includes(step) === true ? [] : (['qemu'] as const)),
    ...(isChild ? (['source'] as const) : []),
    ...(ASKS_AGENT[operation]?.includes(step) === true ? (['agent'] as const) : []),
  ];
}

/**
 * A work's deaths. Of processes and of QEMUs those at each step; without `all`, agents die at one step of each
 * kind, forked VMs at the first and the last step of a child, and what one work passes of another is left to that.
 */
export function deathsOf(work: Work, all: boolean): Death[] {
  const [own] = PASSES[work];
  const isChosen = ({ at: { operation, step }, victim }: Death) =>
    operation === own &&
    (victim !== 'agent' || ASKS_AGENT_FIRST[operation]?.includes(step) === true) &&
    (victim !== 'source' || step === OF_CHILD[0] || step === OF_CHILD.at(-1));
  return placesOf(work)
    .flatMap((at) => victimsAt(work, at).map((victim): Death => ({ work, at, victim })))
    .filter((death) => all || isChosen(death));
}
