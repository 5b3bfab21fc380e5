/** QEMU's snapshot jobs, without a guest: what a VM has no way to show. */
import { mkdtemp, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { execa } from 'execa';
import { lendRoom, prepareBound, raiseBound } from '../../../src/vm/disk-bound.ts';
import { usedBytes } from '../../../src/storage/index.ts';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { QmpClient } from '../../../qmp/index.ts';
import { DiskQuotaError, HostError, QmpCommandError, QmpJobError } from '../../../src/errors.ts';
import {
  deleteSnapshot,
  loadSnapshot,
  querySnapshots,
  saveSnapshot,
} from '../../../src/vm/snapshot-jobs.ts';
import { mountObstacle, mountSmall, type SmallFilesystem } from '../../e2e/vm/mounts.ts';
import { failureOf } from '../../e2e/vm/state.ts';
import { TestQemu } from '../qmp/qemu.ts';
import { SCALE } from '../../scale.ts';

const VM_ID = '0123456789ab';
const obstacle = mountObstacle();
const o = { timeoutMs: 20_000 * SCALE };

describe.skipIf(obstacle !== undefined)('snapshots on a small disk', () => {
  let dir: string;
  let small: SmallFilesystem;
  let qemu: TestQemu;
  let client: QmpClient;
  beforeAll(async () => {
    dir = await mkdtemp(join(tmpdir(), 'qa-snapshots-'));
    small = await mountSmall(join(dir, 'small'), '8m');
    const disk = join(small.dir, 'disk.qcow2');
    await execa('qemu-img', ['create', '-q', '-f', 'qcow2', disk, '64M']);
    const file = { driver: 'file', filename: disk };
    qemu = await TestQemu.start(() => [
      ...['-M', 'q35,accel=tcg', '-m', '16', '-S'],
      ...['-blockdev', JSON.stringify({ driver: 'qcow2', 'node-name': 'disk', file })],
    ]);
    client = await qemu.connect();
  });
  afterAll(async () => {
    await client?.close();
    await qemu?.[Symbol.asyncDispose]();
    await small?.[Symbol.asyncDispose]();
    await rm(dir, { recursive: true, force: true });
  });
  const place = () => ({
    dir: small.dir,
    disk: { vmId: VM_ID, path: join(small.dir, 'disk.qcow2'), quotaBytes: undefined },
  });
  const tags = async () => (await querySnapshots(client, o)).map(({ name }) => name);

  it('are made, loaded and deleted', async () => {
    expect(await tags()).toEqual([]);
    await saveSnapshot(client, { tag: 'one', ...place() }, o);
    expect(await tags()).toEqual(['one']);
    await loadSnapshot(client, 'one', o);
    await deleteSnapshot(client, 'one', o);
    expect(await tags()).toEqual([]);
  });

  it('that fail say what QEMU says, or that the disk is full', async () => {
    const missing = await failureOf(loadSnapshot(client, 'none', o));
    expect(missing).toBeInstanceOf(QmpJobError);
    expect(missing.message).toContain("Snapshot 'none' does not exist");
    await saveSnapshot(client, { tag: 'kept', ...place() }, o);
    await small.fill();
    const full = await failureOf(saveSnapshot(client, { tag: 'lost', ...place() }, o));
    expect(full).toBeInstanceOf(HostError);
    expect(full).toMatchObject({
      code: 'ERR_HOST_DISK_FULL',
      message: expect.stringContaining('disk is full'),
      cause: expect.any(QmpJobError),
    });
    expect(await tags()).toEqual(['kept']);
    await small.free();
  });
});

describe('snapshots within a quota', () => {
  const quotaBytes = 8 * 2 ** 20;
  let dir: string;
  let diskPath: string;
  let qemu: TestQemu;
  let client: QmpClient;
  beforeAll(async () => {
    dir = await mkdtemp(join(tmpdir(), 'qa-quota-'));
    diskPath = join(dir, 'disk.qcow2');
    await execa('qemu-img', ['create', '-q', '-f', 'qcow2', diskPath, '64M']);
    const boundBytes = await prepareBound(place().disk);
    const file = { driver: 'file', filename: diskPath, discard: 'unmap' };
    const bound = {
      ...{ driver: 'raw', 'node-name': 'disk-bound', size: boundBytes, discard: 'unmap' },
      file: { ...file, 'node-name': 'disk-file' },
    };
    const disk = { driver: 'qcow2', 'node-name': 'disk', discard: 'unmap', file: bound };
    qemu = await TestQemu.start(() => [
      ...['-M', 'q35,accel=tcg', '-m', '16', '-S'],
      ...['-blockdev', JSON.stringify(disk)],
    ]);
    client = await qemu.connect();
  });
  afterAll(async () => {
    await client?.close();
    await qemu?.[Symbol.asyncDispose]();
    await rm(dir, { recursive: true, force: true });
  });
  const place = () => ({ dir, disk: { vmId: VM_ID, path: diskPath, quotaBytes } });
  const tags = async () => (await querySnapshots(client, o)).map(({ name }) => name);
  const io = (command: string) =>
    client.execute('human-monitor-command', { 'command-line': `qemu-io disk "${command}"` }, o);

  /** QEMU's own qemu-io says nothing to whoever sent the command. */
  const expectBytes = async (command: string) => {
    await io('flush');
    await execa('qemu-io', ['-U', '-r', '-f', 'qcow2', '-c', command, diskPath]);
  };

  /** What does not fit fails as a whole, so piece by piece. */
  const fill = async (fromMib: number) => {
    for (let piece = 0; piece < quotaBytes / 65_536; piece += 1)
      await io(`write -P 3 ${fromMib * 1024 + piece * 64}k 64k`);
  };

  it('fail when it is reached, and leave the disk and the older ones whole', async () => {
    await io('write -P 1 0 1M');
    await saveSnapshot(client, { tag: 'kept', ...place() }, o);
    await saveSnapshot(client, { tag: 'other', ...place() }, o);
    await io('write -P 2 0 1M');
    await fill(8);
    expect(await usedBytes(diskPath)).toBeLessThanOrEqual(quotaBytes);
    await expectBytes('read -P 2 0 1M');
    const full = await failureOf(saveSnapshot(client, { tag: 'lost', ...place() }, o));
    expect(full).toBeInstanceOf(DiskQuotaError);
    expect(full).toMatchObject({
      ...{ code: 'ERR_DISK_QUOTA', vmId: VM_ID, quotaBytes },
      message: expect.stringContaining('8 MiB'),
      hint: expect.stringContaining('Delete a snapshot'),
      cause: expect.any(QmpJobError),
    });
    expect(await tags()).toEqual(['kept', 'other']);
    expect(await usedBytes(diskPath)).toBeLessThanOrEqual(quotaBytes);
    await expectBytes('read -P 2 0 1M');
    await loadSnapshot(client, 'kept', o);
    await expectBytes('read -P 1 0 1M');
    const { stdout } = await execa('qemu-img', ['check', '-U', diskPath]);
    expect(stdout).toContain('No errors');
  });

  it('can be deleted on a full disk, which lends the room that it takes', async () => {
    await fill(24);
    const { size } = await stat(diskPath);
    await lendRoom(client, { ...place().disk, noFlush: false }, o);
    expect((await stat(diskPath)).size - size).toBe(128 * 1024);
    expect(await prepareBound(place().disk)).toBe(quotaBytes + 128 * 1024);
    await deleteSnapshot(client, 'kept', o);
    await io('discard 24M 4M'); // what a guest frees
    await io('write -P 4 40M 2M');
    await expectBytes('read -P 4 40M 2M');
    await saveSnapshot(client, { tag: 'new', ...place() }, o);
    expect(await tags()).toEqual(['other', 'new']);
  });

  it('has its file as long as before where QEMU refuses a larger one', async () => {
    const { size } = await stat(diskPath);
    const raised = { ...place().disk, noFlush: false, quotaBytes: 2 * quotaBytes };
    const odd = { ...raised, quotaBytes: raised.quotaBytes + 100 }; // no multiple of a sector
    expect(await failureOf(raiseBound(client, odd, o))).toBeInstanceOf(QmpCommandError);
    expect((await stat(diskPath)).size).toBe(size);
    await raiseBound(client, raised, o);
    expect(await prepareBound(raised)).toBe(2 * quotaBytes);
  });
});
