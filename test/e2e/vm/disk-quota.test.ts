/** A VM that has taken all that its quota gives it waits, is told why, and goes on with more room; others notice nothing. */
import { execa } from 'execa';
import { beforeAll, describe, expect, it } from 'vitest';
import { DiskQuotaError } from '../../../src/errors.ts';
import { usedBytes } from '../../../src/storage/index.ts';
import { raiseDiskQuota } from '../../../src/vm/raise-quota.ts';
import { diskUsage } from '../../../src/vm/usage/disk-usage.ts';
import { Vm } from '../../../src/vm/vm.ts';
import { vmPaths } from '../../../src/vm/vm-paths.ts';
import { qmpAgent } from '../../integration/cli/command.ts';
import { SCALE } from '../../scale.ts';
import { failureOf, useTestState } from './state.ts';

/** Room for a boot and one snapshot. */
const QUOTA_MIB = 640;
const QUOTA_BYTES = QUOTA_MIB * 2 ** 20;
/** What a file system needs to note the file's length. */
const SLACK_BYTES = 2 ** 20;
/** Another process asks QEMU every two seconds. */
const NOTICED_MS = 15_000 * SCALE;
/** Fits without snapshots, and not beside them; past the guest's page cache. */
const BIG_MIB = 480;
const FILL = `dd if=/dev/zero of=/var/tmp/big bs=1M count=${BIG_MIB} oflag=direct && sync`;

const state = useTestState();
let vm: Vm;
let other: Vm;
let diskPath: string;
let writerPid: number;

beforeAll(async () => {
  [vm, other] = await Promise.all([
    state.create({ memoryMib: 512, diskQuotaMib: QUOTA_MIB }),
    state.create({ memoryMib: 512 }),
  ]);
  diskPath = vmPaths(state.paths, vm.id).diskPath;
});

describe('a VM with a disk quota', () => {
  it('has snapshots within it, and none that would break it', async () => {
    expect(await vm.info()).toMatchObject({ diskQuotaBytes: QUOTA_BYTES });
    await vm.commands.run('echo before > /var/tmp/note; sync', { user: 'root' });
    await vm.snapshots.create('first');
    const error = await failureOf(makeMany(vm));
    expect(error).toBeInstanceOf(DiskQuotaError);
    expect(error).toMatchObject({ code: 'ERR_DISK_QUOTA', vmId: vm.id, quotaBytes: QUOTA_BYTES });
    expect((await vm.commands.run('echo goes on')).stdout).toBe('goes on\n');
    const { vms } = await diskUsage(state);
    const own = vms.find(({ id }) => id === vm.id);
    const known = await vm.snapshots.list();
    expect(own?.quotaBytes).toBe(QUOTA_BYTES);
    expect(own?.snapshots.map(({ name, stateBytes }) => [name, stateBytes])).toEqual(
      known.map(({ name, sizeBytes }) => [name, sizeBytes]),
    );
  });

  it('is paused when it is reached, and says so to all who wait or come', async () => {
    const writer = await vm.commands.run(FILL, { background: true, user: 'root', timeoutMs: 0 });
    writerPid = writer.pid;
    const idle = failureOf(vm.commands.run('sleep 800', { timeoutMs: 0 }));
    expect(await failureOf(writer.wait())).toMatchObject({
      ...{ name: 'DiskQuotaError', code: 'ERR_DISK_QUOTA', vmId: vm.id },
      message: expect.stringContaining('640 MiB'),
      hint: expect.stringMatching(/snapshot delete.*qmp-agent resume/),
    });
    expect(await idle).toMatchObject({ code: 'ERR_DISK_QUOTA' });
    expect(await vm.info()).toMatchObject({
      state: 'paused',
      stateDetail: expect.stringContaining('quota'),
    });
    const startedAt = performance.now();
    const result = await qmpAgent(['exec', vm.id, '--', 'true'], { env: state.box.env });
    expect(performance.now() - startedAt).toBeLessThan(NOTICED_MS);
    expect(result.exitCode).toBe(125);
    expect(result.stderr).toMatch(/has reached its quota of 640 MiB\nhint: Delete snapshots/);
    expect(await usedBytes(diskPath)).toBeLessThanOrEqual(QUOTA_BYTES + SLACK_BYTES);
  });

  it('takes nothing from others', async () => {
    const write = 'dd if=/dev/zero of=/var/tmp/some bs=1M count=64 oflag=direct && echo written';
    expect((await other.commands.run(write, { user: 'root' })).stdout).toBe('written\n');
    expect(other.state).toBe('running');
  });

  it('goes on where a snapshot gives room, and no write was lost', async () => {
    for (const { name } of await vm.snapshots.list()) await vm.snapshots.delete(name);
    await vm.resume();
    expect(vm.state).toBe('running');
    await expect.poll(() => vm.fault.aborted, { timeout: NOTICED_MS }).toBe(false);
    // The command in the background was kept, and had no error: the write waited.
    await (await vm.commands.connect(writerPid).catch(() => undefined))?.wait();
    const check =
      'stat -c %s /var/tmp/big; cat /var/tmp/note; dmesg | grep -ciE "I/O error|EXT4-fs error"';
    const { stdout } = await vm.commands.run(check, { user: 'root', reject: false });
    expect(stdout).toBe(`${BIG_MIB * 2 ** 20}\nbefore\n0\n`);
    const { stdout: found } = await execa('qemu-img', ['check', '-U', diskPath], { reject: false });
    expect(found).not.toMatch(/[1-9]\d* errors were found/);
  });
});

describe('a disk quota that is raised', () => {
  it('lets a VM that has reached it go on, and no write is lost', async () => {
    const fill = `dd if=/dev/zero of=/var/tmp/more bs=1M count=${BIG_MIB} oflag=direct && sync`;
    const writer = await vm.commands.run(fill, { background: true, user: 'root', timeoutMs: 0 });
    expect(await failureOf(writer.wait())).toMatchObject({
      code: 'ERR_DISK_QUOTA',
      hint: expect.stringContaining(`qmp-agent disk quota ${vm.id} SIZE`),
    });
    const less = await failureOf(raiseDiskQuota(vm, QUOTA_MIB));
    expect(less).toMatchObject({ code: 'ERR_CONFIG', field: 'vm.diskQuotaMib' });
    expect(await failureOf(raiseDiskQuota(other, QUOTA_MIB))).toMatchObject({ code: 'ERR_CONFIG' });
    const raised = await qmpAgent(['disk', 'quota', vm.id, `${3 * QUOTA_MIB}M`], {
      env: state.box.env,
    });
    expect(raised).toMatchObject({ exitCode: 0, stdout: vm.id });
    await vm.resume();
    expect(await vm.info()).toMatchObject({ state: 'running', diskQuotaBytes: 3 * QUOTA_BYTES });
    await (await vm.commands.connect(writer.pid).catch(() => undefined))?.wait();
    const { stdout } = await vm.commands.run(
      'stat -c %s /var/tmp/more; dmesg | grep -c I/O.error',
      {
        ...{ user: 'root', reject: false },
      },
    );
    expect(stdout).toBe(`${BIG_MIB * 2 ** 20}\n0\n`);
    expect(await usedBytes(diskPath)).toBeGreaterThan(QUOTA_BYTES);
    await vm.snapshots.create('beyond');
  });
});

/** Snapshots until there is no room for one. */
async function makeMany(of: Vm): Promise<never> {
  for (;;) await of.snapshots.create();
}
