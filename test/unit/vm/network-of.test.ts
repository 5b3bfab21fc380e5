import { expect, it } from 'vitest';
import { networkOf, takePlace } from '../../../src/vm/network-of.ts';
import type { VmConfig } from '../../../src/vm/record.ts';
import { vmPaths } from '../../../src/vm/vm-paths.ts';

const ID = '0123456789ab';

it('follows from the record; one of before has none', () => {
  const config = (network?: 'isolated' | 'user') => ({ network }) as VmConfig;
  expect(networkOf(ID, config())).toBeUndefined();
  expect(networkOf(ID, config('isolated'))?.nic.netdev).toEqual({ kind: 'none' });
  expect(networkOf(ID, config('user'))?.guest).toMatchObject({ up: true, address: '10.0.2.15' });
});

it('a VM on a bridge whose record has lost its address gets no other network', async () => {
  const files = vmPaths(
    { dataDir: '/nowhere/data', cacheDir: '/nowhere/cache', runtimeDir: '/nowhere/run' },
    ID,
  );
  const config = { network: 'bridge=br0' } as Partial<VmConfig> as VmConfig;
  await expect(takePlace({ id: ID, files, config }, undefined)).rejects.toMatchObject({
    code: 'ERR_STATE_DIR',
    message: expect.stringMatching(/vm\.json does not say which address .* bridge=br0/),
    hint: expect.stringContaining('"lan"'),
  });
});
