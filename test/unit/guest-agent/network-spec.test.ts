import { describe, expect, it } from 'vitest';
import { ipCommands } from '../../../guest-agent/ip-program.ts';
import { parseNetworkSpec } from '../../../guest-agent/network-spec.ts';

const whole = {
  up: true,
  mac: '02:23:45:67:89:ab',
  address: '10.0.2.15',
  prefix: 24,
  gateway: '10.0.2.2',
  gatewayMac: '52:55:0a:00:02:02',
  dns: ['10.0.2.3'],
  mtu: 1500,
};
const v6 = {
  ...{ address: 'fd12:3456::1f', prefix: 127, gateway: 'fd12:3456::1e' },
  gatewayMac: '52:55:0a:00:02:02',
};

describe('parseNetworkSpec', () => {
  it('takes all of it, and the least of it', () => {
    expect(parseNetworkSpec(whole)).toEqual(whole);
    const least = { up: true, address: '10.0.0.1', prefix: 31, dns: [] };
    expect(parseNetworkSpec(least)).toEqual(least);
    expect(parseNetworkSpec({ ...whole, v6 })).toEqual({ ...whole, v6 });
    expect(parseNetworkSpec({ up: false, address: 'x' })).toEqual({ up: false });
  });

  it.each([
    ['up', undefined],
    ['up', 'yes'],
    ['address', '10.0.2.256'],
    ['address', '::1'],
    ['prefix', 0],
    ['prefix', 33],
    ['prefix', 24.5],
    ['peer', '10.0.2'],
    ['gateway', 7],
    ['gateway', undefined],
    ['mac', '03:23:45:67:89:ab'],
    ['mac', '02:23:45:67:89'],
    ['gatewayMac', '02:23:45:67:89:AB'],
    ['dns', '10.0.2.3'],
    ['dns', ['one']],
    ['dns', ['10.0.0.1', '10.0.0.2', '10.0.0.3', '10.0.0.4']],
    ['mtu', 67],
    ['mtu', 65_536],
    ['v6', true],
    ['v6', null],
    ['v6', {}],
    ['v6', { ...v6, address: '10.0.2.15' }],
    ['v6', { ...v6, address: 'fe80::1%eth0' }],
    ['v6', { ...v6, address: '::1' }],
    ['v6', { ...v6, address: '::ffff:192.0.2.1' }],
    ['v6', { ...v6, address: 'ff02::1' }],
    ['v6', { ...v6, gateway: 'fe80::1' }],
    ['v6', { ...v6, gateway: undefined }],
    ['v6', { ...v6, prefix: 129 }],
    ['v6', { ...v6, prefix: 0 }],
    ['v6', { ...v6, gatewayMac: '53:55:0a:00:02:02' }],
    ['v6', { ...v6, gatewayMac: undefined }],
  ])('refuses %s %j', (name, value) => {
    expect(() => parseNetworkSpec({ ...whole, [name]: value })).toThrow(
      expect.objectContaining({ code: 'EINVAL' }),
    );
  });

  it('refuses packets that are too small for IPv6', () => {
    expect(parseNetworkSpec({ ...whole, v6, mtu: 1280 })).toMatchObject({ mtu: 1280 });
    expect(parseNetworkSpec({ ...whole, mtu: 1279 })).toMatchObject({ mtu: 1279 });
    expect(() => parseNetworkSpec({ ...whole, v6, mtu: 1279 })).toThrow(/mtu/);
  });
});

describe('ipCommands', () => {
  const lines = (spec: Record<string, unknown>): string[] =>
    ipCommands('eth0', parseNetworkSpec(spec)).map((args) => args.join(' '));

  it('says the same by the program', () => {
    expect(lines(whole)).toEqual([
      'link set dev eth0 down',
      'address flush dev eth0',
      'link set dev eth0 address 02:23:45:67:89:ab mtu 1500 up',
      'address add 10.0.2.15/24 broadcast + dev eth0',
      'neighbour replace 10.0.2.2 lladdr 52:55:0a:00:02:02 dev eth0 nud permanent',
      'route replace default via 10.0.2.2 dev eth0 onlink',
    ]);
  });

  it('says the same of IPv6', () => {
    expect(lines({ ...whole, v6 }).slice(6)).toEqual([
      '-6 address add fd12:3456::1f/127 dev eth0 nodad',
      '-6 neighbour replace fd12:3456::1e lladdr 52:55:0a:00:02:02 dev eth0 nud permanent',
      '-6 route replace default via fd12:3456::1e dev eth0 onlink',
    ]);
  });

  it('takes the interface down, and sets a point-to-point link', () => {
    expect(lines({ up: false })).toEqual(['link set dev eth0 down', 'address flush dev eth0']);
    const link = { up: true, address: '192.0.2.1', prefix: 32, peer: '198.51.100.7', dns: [] };
    expect(lines(link).slice(2)).toEqual([
      'link set dev eth0 up',
      'address add 192.0.2.1 peer 198.51.100.7/32 dev eth0',
    ]);
  });
});
