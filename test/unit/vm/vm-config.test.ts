import { describe, expect, it } from 'vitest';
import { ConfigError } from '../../../src/errors.ts';
import type { VmCloneOptions, VmCreateOptions, VmForkOptions } from '../../../src/vm/api.ts';
import { checkCloneOptions, checkForkOptions, checkOptions } from '../../../src/vm/vm-config.ts';

describe('checkOptions', () => {
  it('fills in the defaults', () => {
    expect(checkOptions({})).toMatchObject({
      image: 'base',
      vcpus: 1,
      memoryMib: 1024,
      accel: 'auto',
      machine: 'q35',
      channel: 'auto',
      network: undefined,
      persistent: false,
      kernelArgs: [],
    });
  });

  it('takes MiB and gives bytes', () => {
    expect(checkOptions({ diskMib: 4096 }).diskBytes).toBe(4096 * 2 ** 20);
    expect(checkOptions({ diskQuotaMib: 512 }).diskQuotaBytes).toBe(512 * 2 ** 20);
    expect(checkOptions({}).diskQuotaBytes).toBeUndefined();
  });

  it('knows its options, and says which one was meant', () => {
    const misspelt = { memoryMiB: 512 } as VmCreateOptions;
    expect(() => checkOptions(misspelt)).toThrow(
      expect.objectContaining({ field: 'vm.memoryMiB', hint: 'Did you mean memoryMib?' }),
    );
    const foreign = { fo: 1 } as VmCreateOptions;
    expect(() => checkOptions(foreign)).toThrow(
      expect.objectContaining({ hint: expect.stringMatching(/^There are image, name,/) }),
    );
  });

  it.each<[string, unknown]>([
    ['name', 'a b'],
    ['name', ''],
    ['vcpus', 0],
    ['vcpus', 1.5],
    ['vcpus', 65],
    ['vcpus', '2'],
    ['memoryMib', 127],
    ['memoryMib', NaN],
    ['memoryMib', 2 ** 21],
    ['diskMib', 0],
    ['diskMib', Infinity],
    ['diskQuotaMib', 15],
    ['diskQuotaMib', 2 ** 21 + 1],
    ['cid', 2],
    ['cid', 2 ** 32 - 1],
    ['accel', 'xen'],
    ['machine', 'pc'],
    ['channel', 'tcp'],
    ['network', 'lan'],
    ['hostname', 'a_b'],
    ['hostname', '-a'],
    ['hostname', 'a'.repeat(64)],
    ['kernelArgs', ['a b']],
    ['kernelArgs', ['a\nb']],
    ['kernelArgs', ['x'.repeat(2_000)]],
  ])('refuses %s: %j and names the field', (field, value) => {
    const options = { [field]: value } as VmCreateOptions;
    expect(() => checkOptions(options)).toThrow(ConfigError);
    expect(() => checkOptions(options)).toThrow(
      expect.objectContaining({ field: `vm.${field}`, hint: expect.stringMatching(/\S/) }) as Error,
    );
  });
});

describe('the address on a bridge', () => {
  const lan = { address: '192.0.2.5/24' };

  it('is taken with a bridge', () => {
    expect(checkOptions({ network: 'bridge=br0', lan })).toMatchObject({ lan });
  });

  it.each<[string, VmCreateOptions]>([
    ['vm.lan', { network: 'bridge=br0' }],
    ['vm.lan', { network: 'isolated', lan }],
    ['vm.lan', { lan }],
    ['vm.lan.address', { network: 'bridge=br0', lan: { address: '192.0.2.5' } }],
    ['vm.egress', { network: 'bridge=br0', lan, egress: {} }],
    ['vm.publish', { network: 'bridge=br0', lan, publish: ['8080:80'] }],
  ])('is an error of %s: %j', (field, options) => {
    expect(() => checkOptions(options)).toThrow(
      expect.objectContaining({ field, hint: expect.stringMatching(/\S/) }),
    );
  });
});

describe('IPv6', () => {
  it('implies the network that has it', () => {
    expect(checkOptions({ ipv6: true })).toMatchObject({ network: 'nat-filtered', ipv6: true });
    expect(checkOptions({ ipv6: false }).network).toBeUndefined();
    expect(() => checkOptions({ network: 'user', ipv6: false })).not.toThrow();
  });

  it('is needed by who opens addresses of it', () => {
    const egress = { allowCidrs: ['fd00::/64'] };
    expect(() => checkOptions({ egress, ipv6: true })).not.toThrow();
    expect(() => checkOptions({ egress })).toThrow(
      expect.objectContaining({ field: 'network.allowCidrs' }),
    );
  });

  it.each(['isolated', 'user', 'bridge=br0'] as const)('is none of %s', (network) => {
    const lan = network === 'bridge=br0' ? { lan: { address: '192.0.2.5/24' } } : {};
    const refused = {
      ...{ code: 'ERR_CONFIG', field: 'vm.ipv6', value: true },
      message: `the network ${network} has no IPv6`,
      hint: expect.stringContaining('nat-filtered'),
    };
    expect(() => checkOptions({ network, ipv6: true, ...lan })).toThrow(
      expect.objectContaining(refused),
    );
    expect(() => checkCloneOptions({ network, ipv6: true, ...lan })).toThrow(
      expect.objectContaining(refused),
    );
  });
});

describe('checkCloneOptions', () => {
  it('refuses a network that there is not', () => {
    expect(() => checkCloneOptions({ network: 'user' })).not.toThrow();
    const lan = { network: 'lan' } as unknown as VmCloneOptions;
    expect(() => checkCloneOptions(lan)).toThrow(expect.objectContaining({ field: 'vm.network' }));
  });
});

describe('checkForkOptions', () => {
  it('gives a name, or none, for each child', () => {
    expect(checkForkOptions({})).toEqual([undefined]);
    expect(checkForkOptions({ count: 3 })).toEqual([undefined, undefined, undefined]);
    expect(checkForkOptions({ names: ['a', 'b'] })).toEqual(['a', 'b']);
    expect(checkForkOptions({ count: 2, names: ['a', 'b'] })).toEqual(['a', 'b']);
  });

  it.each([
    [{ count: 0 }, 'fork.count'],
    [{ count: 65 }, 'fork.count'],
    [{ count: 1.5 }, 'fork.count'],
    [{ count: 3, names: ['a', 'b'] }, 'fork.names'],
    [{ names: ['a', 'a'] }, 'fork.names'],
    [{ names: ['../a'] }, 'vm.name'],
    [{ name: 'a' }, 'fork.name'],
  ])('refuses %j', (options, field) => {
    expect(() => checkForkOptions(options as VmForkOptions)).toThrow(
      expect.objectContaining({ field }),
    );
  });
});
