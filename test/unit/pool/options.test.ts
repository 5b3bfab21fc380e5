import { describe, expect, it } from 'vitest';
import type { PoolOptions } from '../../../src/pool/types.ts';
import { checkPoolOptions, checkStrategy } from '../../../src/pool/options.ts';

describe('options of a pool', () => {
  it('have defaults', () => {
    const { name, ...config } = checkPoolOptions({});
    expect(name).toMatch(/^pool-\d+$/);
    expect(config).toEqual({
      minSize: 1,
      maxSize: 4,
      maxAgeMs: 3_600_000,
      idleTimeoutMs: 60_000,
      healthIntervalMs: 30_000,
      countedBytes: undefined,
    });
    expect(checkPoolOptions({ minSize: 9 }).maxSize).toBe(9);
    expect(checkPoolOptions({ countedMemoryMib: 3 }).countedBytes).toBe(3 * 2 ** 20);
    expect(checkPoolOptions({}).name).not.toBe(name);
  });

  it.each([
    [{ minSize: -1 }, 'pool.minSize', /from 0 to 1000/],
    [{ maxSize: 0 }, 'pool.maxSize', /from 1 to 1000/],
    [{ minSize: 3, maxSize: 2 }, 'pool.maxSize', /at least 3/],
    [{ maxSize: 1.5 }, 'pool.maxSize', /whole number/],
    [{ maxAgeMs: 10 }, 'pool.maxAgeMs', /from 1000/],
    [{ idleTimeoutMs: Infinity }, 'pool.idleTimeoutMs', /from 100/],
    [{ healthIntervalMs: 2 ** 31 }, 'pool.healthIntervalMs', /to 2147483647/],
    [{ maxsize: 3 }, 'pool.maxsize', /mean maxSize/],
    [{ vm: { network: 'bridge=br0' } }, 'pool.vm.network', /nat-filtered/],
  ])('that cannot be are refused: %j', (options, field, hint) => {
    expect(() => checkPoolOptions(options as PoolOptions)).toThrow(
      expect.objectContaining({ code: 'ERR_CONFIG', field, hint: expect.stringMatching(hint) }),
    );
  });
});

describe('the strategy', () => {
  it('follows from the template', () => {
    expect(checkStrategy({})).toBe('savevm');
    expect(checkStrategy({ strategy: 'recreate' })).toBe('recreate');
    expect(checkStrategy({ template: 'node' })).toBe('clone');
  });

  it.each([
    [{ strategy: 'clone' }, 'pool.template', /Name a template/],
    [{ strategy: 'savevm', template: 'node' }, 'pool.strategy', /Leave the strategy out/],
    [{ strategy: 'magic' }, 'pool.strategy', /clone, savevm, recreate/],
  ])('has to fit: %j', (options, field, hint) => {
    expect(() => checkStrategy(options as PoolOptions)).toThrow(
      expect.objectContaining({ code: 'ERR_CONFIG', field, hint: expect.stringMatching(hint) }),
    );
  });
});
