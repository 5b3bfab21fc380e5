import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it, onTestFinished } from 'vitest';
import { networkDir, writeEntry, type NetworkEntry } from '../../../src/network/entry.ts';
import { networkOf, takePlace, tapNowOf } from '../../../src/vm/network-of.ts';
import { ownIdentity } from '../../../src/vm/process-identity.ts';
import { writeRecord, type VmConfig, type VmRecord } from '../../../src/vm/record.ts';
import { STATE_SCHEMA } from '../../../src/vm/state-dir.ts';
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

it('a tap that is lent is a VM’s as long as its QEMU lives; one of its own until it is gone', async () => {
  const dir = await mkdtemp(join(tmpdir(), 'qa-tap-'));
  onTestFinished(() => rm(dir, { recursive: true }));
  const runtimeDir = join(dir, 'run');
  const files = vmPaths({ dataDir: dir, cacheDir: dir, runtimeDir }, ID);
  const config = { rootfsPath: '/x', network: 'nat-filtered' } as Partial<VmConfig> as VmConfig;
  const vm = { id: ID, files, config };
  const entry = { vmId: ID, network: { tap: 'qmpa1' } } as Partial<NetworkEntry> as NetworkEntry;
  const write = (qemu = ownIdentity()) => {
    const run = { starter: qemu, qemu, startedAt: 't', accel: 'tcg', ports: 4 } as const;
    const record: VmRecord = {
      ...{ schema: STATE_SCHEMA, id: ID, createdAt: 't', config, state: 'running', run },
    };
    return writeRecord(files, record);
  };
  const ended = { ...ownIdentity(), startTicks: 1 };
  expect(await tapNowOf(vm)).toBeUndefined();
  await mkdir(files.dir, { recursive: true });
  await write();
  expect((await tapNowOf(vm))?.tap).toBeUndefined();
  await writeEntry(networkDir(runtimeDir), { ...entry, loan: { id: 'one', logPath: '/x' } });
  expect(await tapNowOf(vm)).toEqual({ tap: 'qmpa1', loan: 'one' });
  await write(ended);
  expect(await tapNowOf(vm)).toEqual({});
  await writeEntry(networkDir(runtimeDir), entry);
  expect(await tapNowOf(vm)).toEqual({ tap: 'qmpa1' });
});
