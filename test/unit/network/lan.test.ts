import { describe, expect, it } from 'vitest';
import { parseLan, type LanOptions } from '../../../src/network/lan.ts';

describe('parseLan', () => {
  it('gives what the guest is told, and nothing that was not asked for', () => {
    expect(parseLan({ address: '192.0.2.5/24' })).toEqual({
      ...{ up: true, address: '192.0.2.5', prefix: 24, dns: [] },
    });
    const all = { address: '10.0.0.1/31', gateway: '10.0.0.0', dns: ['9.9.9.9', '1.1.1.1'] };
    expect(parseLan(all)).toEqual({ ...all, up: true, address: '10.0.0.1', prefix: 31 });
  });

  it.each<[keyof LanOptions, LanOptions]>([
    ['address', { address: '192.0.2.5' }],
    ['address', { address: '192.0.2.5/0' }],
    ['address', { address: '192.0.2.5/32' }],
    ['address', { address: '192.0.2.256/24' }],
    ['address', { address: '192.0.2.0/24' }],
    ['address', { address: '192.0.2.255/24' }],
    ['address', { address: '192.0.2.5/24/24' }],
    ['address', { address: '2001:db8::5/64' }],
    ['gateway', { address: '192.0.2.5/24', gateway: '192.0.3.1' }],
    ['gateway', { address: '192.0.2.5/24', gateway: '192.0.2.5' }],
    ['gateway', { address: '192.0.2.5/24', gateway: 'router' }],
    ['gateway', { address: '192.0.2.5/24', gateway: '192.0.2.0' }],
    ['gateway', { address: '192.0.2.5/24', gateway: '192.0.2.255' }],
    ['dns', { address: '192.0.2.5/24', dns: ['one.one'] }],
    ['dns', { address: '192.0.2.5/24', dns: ['192.0.2.1', '192.0.2.255'] }],
    ['dns', { address: '192.0.2.5/24', dns: ['1.1.1.1', '1.1.1.2', '1.1.1.3', '1.1.1.4'] }],
  ])('names %s where it is wrong: %j', (key, options) => {
    expect(() => parseLan(options)).toThrow(
      expect.objectContaining({ code: 'ERR_CONFIG', field: `vm.lan.${key}` }),
    );
  });

  it.each(['0.0.0.0', '0.0.0.7', '127.0.0.1', '224.0.0.1', '239.1.2.3', '255.255.255.255'])(
    'takes %s for no machine’s address',
    (bad) => {
      const lan = { address: '192.0.2.5/24' };
      const refused = (key: string, value: string): unknown =>
        expect.objectContaining({
          ...{ code: 'ERR_CONFIG', field: `vm.lan.${key}`, value },
          ...{ message: expect.stringContaining(bad), hint: expect.stringMatching(/^Give /) },
        });
      expect(() => parseLan({ address: `${bad}/24` })).toThrow(refused('address', `${bad}/24`));
      expect(() => parseLan({ ...lan, gateway: bad })).toThrow(refused('gateway', bad));
      expect(() => parseLan({ ...lan, dns: ['192.0.2.1', bad] })).toThrow(refused('dns', bad));
    },
  );

  it('knows its options', () => {
    const misspelt = { address: '192.0.2.5/24', router: '192.0.2.1' } as LanOptions;
    expect(() => parseLan(misspelt)).toThrow(expect.objectContaining({ field: 'vm.lan.router' }));
  });
});
