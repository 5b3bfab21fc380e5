import { expect, it } from 'vitest';
import { networkOf } from '../../../src/vm/network-of.ts';
import type { VmConfig } from '../../../src/vm/record.ts';

const ID = '0123456789ab';

it('follows from the record; one of before has none', () => {
  const config = (network?: 'isolated' | 'user') => ({ network }) as VmConfig;
  expect(networkOf(ID, config())).toBeUndefined();
  expect(networkOf(ID, config('isolated'))?.nic.netdev).toEqual({ kind: 'none' });
  expect(networkOf(ID, config('user'))?.guest).toMatchObject({ up: true, address: '10.0.2.15' });
});
