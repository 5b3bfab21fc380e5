import { describe, expect, it } from 'vitest';
import { DEFAULT_POLICY } from '../../../nft/index.ts';
import {
  bridgeOf,
  checkNetworkMode,
  hasTap,
  placeBehindHost,
  placeOnBridge,
  planNetwork,
  type NetworkMode,
} from '../../../src/network/mode.ts';

const mac = '02:23:45:67:89:ab';

describe('checkNetworkMode', () => {
  it('takes a bridge by its name', () => {
    expect(checkNetworkMode('bridge=br-lan.7')).toBe('bridge=br-lan.7');
    expect(bridgeOf('bridge=br-lan.7')).toBe('br-lan.7');
    expect(['isolated', 'user', 'nat-filtered', 'bridge=br0', undefined].map(hasTap)).toEqual([
      ...[false, false, true, true, false],
    ]);
  });

  it.each([
    'bridge',
    'bridge=',
    'bridge=..',
    'bridge=a b',
    'bridge=-br',
    `bridge=${'b'.repeat(16)}`,
  ])('refuses %j', (mode) => {
    expect(() => checkNetworkMode(mode as NetworkMode)).toThrow(
      expect.objectContaining({ field: 'vm.network', hint: expect.stringContaining('bridge=') }),
    );
  });
});

describe('planNetwork', () => {
  it('joins an isolated VM to nothing, and has nothing to tell its agent', () => {
    expect(planNetwork('isolated', '0123456789ab')).toEqual({
      nic: { mac, netdev: { kind: 'none' } },
      guest: undefined,
    });
  });

  it('joins a VM on a bridge to its tap, once it has one, with the address that was given', () => {
    const place = placeOnBridge('qmpb1', '0123456789ab', { address: '192.0.2.5/24' });
    expect(planNetwork('bridge=br0', '0123456789ab', place)).toEqual({
      nic: { mac, netdev: { kind: 'tap', ifname: 'qmpb1' } },
      guest: { up: true, mac, address: '192.0.2.5', prefix: 24, dns: [] },
    });
    expect(planNetwork('bridge=br0', '0123456789ab').nic.netdev).toEqual({ kind: 'none' });
  });

  it('tells a VM behind the host both ends of its tap, in IPv6 where it has that', () => {
    const network = {
      ...{ tap: 'qmpa1', mac, generation: 0, policy: DEFAULT_POLICY },
      ...{ gatewayAddress: '10.210.0.2', guestAddress: '10.210.0.3' },
    };
    const gatewayMac = '02:71:6d:70:61:01';
    const guest = {
      ...{ up: true, mac, address: '10.210.0.3', prefix: 31 },
      ...{ gateway: '10.210.0.2', gatewayMac, dns: ['10.210.0.2'] },
    };
    expect(placeBehindHost(network)).toEqual({ tap: 'qmpa1', guest });
    const v6 = { gatewayAddress: 'fd12::2', guestAddress: 'fd12::3' };
    expect(placeBehindHost({ ...network, v6 })).toEqual({
      tap: 'qmpa1',
      guest: {
        ...guest,
        v6: { address: 'fd12::3', prefix: 127, gateway: 'fd12::2', gatewayMac },
      },
    });
  });

  it('gives the user-mode network what QEMU expects there', () => {
    expect(planNetwork('user', '0123456789ab')).toEqual({
      nic: { mac, netdev: { kind: 'user' } },
      guest: {
        up: true,
        mac,
        address: '10.0.2.15',
        prefix: 24,
        gateway: '10.0.2.2',
        dns: ['10.0.2.3'],
      },
    });
  });
});
