/** What is on the disk of a state directory, counted in what it takes and not in how long it is. */
import { link, mkdir, mkdtemp, rm, symlink, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { execa } from 'execa';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { qmpAgent } from '../cli/command.ts';
import { allocatedBytes, readSnapshots } from '../../../src/storage/index.ts';
import { checkpointFiles, makeCheckpoint } from '../../../src/vm/fork/checkpoint.ts';
import { openImageStore } from '../../../src/vm/image-store.ts';
import { writeRecord, type VmRecord } from '../../../src/vm/record.ts';
import { raiseDiskQuota } from '../../../src/vm/raise-quota.ts';
import { ensureStateDirs, STATE_SCHEMA } from '../../../src/vm/state-dir.ts';
import { diskUsage } from '../../../src/vm/usage/disk-usage.ts';
import { vmPaths } from '../../../src/vm/vm-paths.ts';

const VM_ID = 'aaaaaaaaaaaa';
const MIB = 2 ** 20;
const [CURRENT, OLD] = ['0123456789ab-0001', '0123456789ab-0000'];
let dir: string;
let paths: { dataDir: string; runtimeDir: string; cacheDir: string };

beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'qmp-agent-usage-'));
  paths = { dataDir: join(dir, 'data'), runtimeDir: join(dir, 'run'), cacheDir: join(dir, 'c') };
  await ensureStateDirs(paths);
  for (const version of [CURRENT, OLD]) {
    await mkdir(join(paths.dataDir, 'images/base', version), { recursive: true });
    await writeFile(imageFile(version), Buffer.alloc(MIB, 1));
  }
  await symlink(CURRENT, join(paths.dataDir, 'images/base/current'));
  await mkdir(paths.cacheDir);
  await writeFile(join(paths.cacheDir, 'own'), Buffer.alloc(65_536, 1));
  await link(imageFile(CURRENT), join(paths.cacheDir, 'shared')); // as a kernel is
});
afterEach(() => rm(dir, { recursive: true }));

const imageFile = (version: string) => join(paths.dataDir, 'images/base', version, 'rootfs.qcow2');

/** A stopped VM whose disk holds two snapshots. */
async function makeVm(on: string): Promise<void> {
  const files = vmPaths(paths, VM_ID);
  await mkdir(files.dir, { recursive: true });
  await execa('qemu-img', ['create', '-q', '-f', 'qcow2', files.diskPath, '64M']);
  for (const name of ['one', 'two'])
    await execa('qemu-img', ['snapshot', '-c', name, files.diskPath]);
  await truncate(files.diskPath, 2 ** 30);
  await writeFile(files.consoleLogPath, '');
  await truncate(files.consoleLogPath, 2 ** 30);
  const config = { image: 'base', rootfsPath: imageFile(on), diskQuotaBytes: 2 ** 30 };
  const record = { schema: STATE_SCHEMA, id: VM_ID, name: 'box', createdAt: 't', state: 'stopped' };
  await writeRecord(files, { ...record, config } as unknown as VmRecord);
}

describe('disk usage', () => {
  it('says what there is, who stands on what, and what could go', async () => {
    await makeVm(CURRENT);
    const found = await diskUsage({ paths });
    expect(found.images).toEqual([
      expect.objectContaining({ version: OLD, isCurrent: false, usedBy: [] }),
      expect.objectContaining({ version: CURRENT, isCurrent: true, usedBy: ['box'] }),
    ]);
    const [vm] = found.vms;
    expect(vm).toMatchObject({
      ...{ id: VM_ID, name: 'box', state: 'stopped', standsOn: 'image base' },
      ...{ quotaBytes: 2 ** 30, logBytes: 0 },
      snapshots: [
        { name: 'one', stateBytes: 0 },
        { name: 'two', stateBytes: 0 },
      ],
    });
    expect(vm?.usedBytes).toBeLessThan(2 * MIB);
    // What has a name in the image and one in the cache is there once.
    expect(found.usedBytes).toBeLessThan(await allocatedBytes(dir));
    expect(found.cache.usedBytes).toBeLessThan(MIB);
    expect(found.reclaimable.map(({ command }) => command)).toEqual([
      'qmp-agent image prune',
      'qmp-agent remove box',
      `rm -r ${paths.cacheDir}`,
    ]);
  });

  it('itemises points of forks, and the memory of suspended VMs', async () => {
    await makeVm(CURRENT);
    const files = vmPaths(paths, VM_ID);
    await mkdir(join(files.dir, 'saved-0123abcd'));
    await writeFile(join(files.dir, 'saved-0123abcd', 'memory'), Buffer.alloc(2 * MIB, 1));
    const fork = checkpointFiles(paths, 'cccccccccccc');
    await makeCheckpoint(paths, 'cccccccccccc', VM_ID);
    await writeFile(fork.memoryPath, Buffer.alloc(3 * MIB, 1));
    await writeFile(fork.diskPath, Buffer.alloc(MIB, 1));
    const { vms, checkpoints, others } = await diskUsage({ paths });
    expect(vms[0]?.suspendedBytes).toBeGreaterThanOrEqual(2 * MIB);
    expect(vms[0]?.otherBytes).toBeLessThan(MIB);
    expect(checkpoints).toMatchObject([
      { id: 'cccccccccccc', forkedFrom: VM_ID, memoryBytes: 3 * MIB, diskBytes: MIB, usedBy: [] },
    ]);
    for (const { usedBytes } of others) expect(usedBytes).toBeLessThan(MIB);
  });

  it('has the quota of a stopped VM, which can be raised, and not lowered', async () => {
    await makeVm(CURRENT);
    await raiseDiskQuota('box', 2048, { paths });
    expect((await diskUsage({ paths })).vms).toMatchObject([{ quotaBytes: 2 ** 31 }]);
    for (const mib of [2048, 1024, 1])
      await expect(raiseDiskQuota('box', mib, { paths })).rejects.toMatchObject({
        ...{ code: 'ERR_CONFIG', field: 'vm.diskQuotaMib' },
      });
  });

  it('is what the command shows', async () => {
    await makeVm(CURRENT);
    const env = {
      ...{ QMP_AGENT_STATE_DATA_DIR: paths.dataDir, QMP_AGENT_STATE_RUNTIME_DIR: paths.runtimeDir },
      QMP_AGENT_STATE_CACHE_DIR: paths.cacheDir,
    };
    const shown = await qmpAgent(['disk', 'usage'], { env });
    expect(shown.stdout).toMatch(/base +0123456789ab-0001 +1(\.0)? MiB +1: box/);
    expect(shown.stdout).toMatch(/box +stopped.* 2 \(0 B\).* image base/);
    expect(shown.stdout).toMatch(/to be had back:[^]*qmp-agent image prune/);
    const asJson = await qmpAgent(['disk', 'usage', '--json'], { env });
    expect(JSON.parse(String(asJson.stdout))).toMatchObject({ vms: [{ id: VM_ID }] });
  });

  it('shrinks by what it says can go', async () => {
    await makeVm(OLD);
    const images = openImageStore(paths);
    expect(await images.prune()).toEqual([]);
    await rm(vmPaths(paths, VM_ID).dir, { recursive: true });
    expect(await images.prune()).toEqual([join(paths.dataDir, 'images/base', OLD)]);
    expect((await diskUsage({ paths })).images).toHaveLength(1);
  });

  it('of an empty directory is nothing', async () => {
    const none = { ...paths, dataDir: join(dir, 'none'), cacheDir: join(dir, 'none') };
    expect(await diskUsage({ paths: none })).toMatchObject({ usedBytes: 0, reclaimable: [] });
  });
});

describe('the snapshots of a disk', () => {
  it('are none of a file that is gone, or no qcow2', async () => {
    expect(await readSnapshots(join(dir, 'none'))).toEqual([]);
    await writeFile(join(dir, 'short'), 'QFI');
    expect(await readSnapshots(join(dir, 'short'))).toEqual([]);
    await writeFile(join(dir, 'text'), Buffer.alloc(4096, 0x20));
    expect(await readSnapshots(join(dir, 'text'))).toEqual([]);
  });
});
