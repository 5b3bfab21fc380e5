import { describe, expect, it } from 'vitest';
import { planNetwork } from '../../../src/network/mode.ts';

const mac = '02:23:45:67:89:ab';

describe('planNetwork', () => {
  it('joins an isolated VM to nothing, and has nothing to tell its agent', () => {
    expect(planNetwork('isolated', '0123456789ab')).toEqual({
      nic: { mac, netdev: { kind: 'none' } },
      guest: undefined,
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
