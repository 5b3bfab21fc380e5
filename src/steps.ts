/**
 * Where long operations are: at the begin of each step a message on Node's diagnostics channel
 * {@link STEP_CHANNEL}. For who times them, or wants to know at which one they stand; what has happened is
 * told by the events. Costs next to nothing while nobody subscribes.
 */
import { channel } from 'node:diagnostics_channel';

/** Name of the channel, for `node:diagnostics_channel`. Its messages are {@link StepMessage}s. */
export const STEP_CHANNEL = 'qmp-agent:step';

/** All operations with their steps, in order. Some are left out where there is nothing to do. */
export const STEPS = {
  create: ['enter', 'disk', 'launch', 'spawned', 'ready', 'record'],
  start: ['launch', 'spawned', 'ready', 'record'],
  clone: ['enter', 'disk', 'launch', 'spawned', 'load', 'ready', 'record'],
  /** From `disk` on `vmId` is the child's, and each child goes through them. */
  // prettier-ignore
  fork: [
    'enter', 'checkpoint', 'copy', 'park', 'stop', 'state', 'take', 'go-on', 'thaw', 'complete',
    'disk', 'launch', 'spawned', 'load', 'ready', 'record',
  ],
  'snapshot.create': ['check', 'save', 'note', 'clock'],
  'snapshot.restore': ['reserve', 'stop', 'load', 'wake', 'renew', 'record'],
  suspend: ['keep', 'park', 'stop', 'state', 'memory', 'durable', 'commit', 'end', 'sweep'],
  resume: ['check', 'launch', 'spawned', 'load', 'commit', 'wake', 'renew', 'record'],
  /** Within a launch: a VM gets its tap. */
  'network.attach': ['tap', 'rules', 'up'],
  'network.detach': ['rules', 'tap'],
  /** Its policy, or what of its connections lives on. */
  'network.change': ['note', 'rules', 'record'],
  /** The end of a VM that belongs to its process; so ends each VM of a pool. */
  discard: ['kill', 'files'],
  /** A used VM of a pool is made as new in place, by way of a `snapshot.restore`. */
  'pool.reset': ['check', 'restore', 'clean', 'warm'],
} as const;

/** Something that takes several steps. */
export type Operation = keyof typeof STEPS;

/** A step of an operation. */
export type StepOf<O extends Operation> = (typeof STEPS)[O][number];

/** What is published on {@link STEP_CHANNEL}. */
export interface StepMessage {
  readonly operation: Operation;
  /** The step that begins. */
  readonly step: string;
  readonly vmId: string;
}

const steps = channel(STEP_CHANNEL);

/** A step begins. Subscribers are called before it does. */
export function step<O extends Operation>(operation: O, name: StepOf<O>, vmId: string): void {
  if (!steps.hasSubscribers) return;
  const message: StepMessage = { operation, step: name, vmId };
  steps.publish(message);
}
