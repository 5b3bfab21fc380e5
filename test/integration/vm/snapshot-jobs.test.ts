/** QEMU's snapshot jobs, without a guest: what a VM has no way to show. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { execa } from 'execa';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { QmpClient } from '../../../qmp/index.ts';
import { HostError, QmpJobError } from '../../../src/errors.ts';
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
  const tags = async () => (await querySnapshots(client, o)).map(({ name }) => name);

  it('are made, loaded and deleted', async () => {
    expect(await tags()).toEqual([]);
    await saveSnapshot(client, { tag: 'one', dir: small.dir }, o);
    expect(await tags()).toEqual(['one']);
    await loadSnapshot(client, 'one', o);
    await deleteSnapshot(client, 'one', o);
    expect(await tags()).toEqual([]);
  });

  it('that fail say what QEMU says, or that the disk is full', async () => {
    const missing = await failureOf(loadSnapshot(client, 'none', o));
    expect(missing).toBeInstanceOf(QmpJobError);
    expect(missing.message).toContain("Snapshot 'none' does not exist");
    await saveSnapshot(client, { tag: 'kept', dir: small.dir }, o);
    await small.fill();
    const full = await failureOf(saveSnapshot(client, { tag: 'lost', dir: small.dir }, o));
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
