/** From what a caller asks to how a pool is run. Pure. */
import { checkOptionShapes, wholeNumber, type OptionShapes } from '../config/check-options.ts';
import { MAX_TIMEOUT_MS } from '../config/schema.ts';
import { ConfigError } from '../errors.ts';
import { bridgeOf } from '../network/mode.ts';
import type { PoolOptions, PoolStrategy } from './types.ts';

/** Most VMs of a pool. */
const MAX_VMS = 1_000;
const DEFAULT_MAX_SIZE = 4;
const MIB = 2 ** 20;

/** Size and upkeep of a pool, checked, defaults filled in. */
export interface PoolConfig {
  readonly name: string;
  readonly minSize: number;
  readonly maxSize: number;
  readonly maxAgeMs: number;
  readonly idleTimeoutMs: number;
  readonly healthIntervalMs: number;
  readonly countedBytes: number | undefined;
}

const OPTIONS: OptionShapes<PoolOptions> = {
  name: 'text',
  minSize: 'number',
  maxSize: 'number',
  maxAgeMs: 'number',
  idleTimeoutMs: 'number',
  healthIntervalMs: 'number',
  countedMemoryMib: 'number',
  strategy: 'text',
  template: 'text',
  vm: 'object',
  prepare: 'function',
  timeoutMs: 'number',
  signal: 'signal',
};

/** All strategies. */
export const STRATEGIES: readonly PoolStrategy[] = ['clone', 'savevm', 'recreate'];

let unnamed = 0;

const whole = (field: keyof PoolOptions, value: number, min: number, max: number): number =>
  wholeNumber(`pool.${field}`, value, min, max);

/** Checks a pool's options, but for those of its VMs. @throws ConfigError */
export function checkPoolOptions(o: PoolOptions): PoolConfig {
  checkOptionShapes(o, OPTIONS, { section: 'pool', noun: 'pool option' });
  const minSize = whole('minSize', o.minSize ?? 1, 0, MAX_VMS);
  const maxSize = whole('maxSize', o.maxSize ?? Math.max(DEFAULT_MAX_SIZE, minSize), 1, MAX_VMS);
  if (maxSize < minSize) {
    throw new ConfigError(`pool.maxSize is ${maxSize}, less than pool.minSize, ${minSize}`, {
      field: 'pool.maxSize',
      value: maxSize,
      hint: `Give at least ${minSize}, or lower minSize.`,
    });
  }
  const network = o.vm?.network;
  if (bridgeOf(network) !== undefined) {
    throw new ConfigError('VMs of a pool cannot be on a bridge: each would need its own address', {
      field: 'pool.vm.network',
      value: network,
      hint: 'Take isolated, nat-filtered or user.',
    });
  }
  const ms = (field: keyof PoolOptions, value: number, min: number) =>
    whole(field, value, min, MAX_TIMEOUT_MS);
  const counted = o.countedMemoryMib;
  return {
    name: o.name ?? `pool-${(unnamed += 1)}`,
    minSize,
    maxSize,
    maxAgeMs: ms('maxAgeMs', o.maxAgeMs ?? 3_600_000, 1_000),
    idleTimeoutMs: ms('idleTimeoutMs', o.idleTimeoutMs ?? 60_000, 100),
    healthIntervalMs: ms('healthIntervalMs', o.healthIntervalMs ?? 30_000, 100),
    countedBytes:
      counted === undefined ? undefined : whole('countedMemoryMib', counted, 1, 2 ** 30) * MIB,
  };
}

/** The strategy that was asked for. @throws ConfigError it does not fit the template, or the lack of one */
export function checkStrategy({ template, strategy }: PoolOptions): PoolStrategy {
  const chosen = strategy ?? (template === undefined ? 'savevm' : 'clone');
  const wrong = (field: string, value: unknown, what: string, hint: string) =>
    new ConfigError(what, { field: `pool.${field}`, value, hint });
  if (!STRATEGIES.includes(chosen)) {
    const what = `there is no strategy ${JSON.stringify(chosen)}`;
    throw wrong('strategy', chosen, what, `Give one of ${STRATEGIES.join(', ')}.`);
  }
  if (chosen === 'clone' && template === undefined) {
    const what = 'the strategy clone needs a template';
    throw wrong('template', template, what, 'Name a template, see `qmp-agent template create`.');
  }
  if (chosen !== 'clone' && template !== undefined) {
    const what = `the strategy ${chosen} knows no templates`;
    throw wrong('strategy', chosen, what, 'Leave the strategy out, or the template.');
  }
  return chosen;
}
