/** The host's disk is full: the guest waits, calls are told, and it goes on where there is space again. */
import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import { mkdir, readdir, symlink } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { resolvePaths } from '../../../src/config/paths.ts';
import { HostError } from '../../../src/errors.ts';
import { STEP_CHANNEL, type StepMessage } from '../../../src/steps.ts';
import type { StatePaths } from '../../../src/vm/api.ts';
import { Vm } from '../../../src/vm/vm.ts';
import { qmpAgent } from '../../integration/cli/command.ts';
import { mountObstacle, mountSmall, type SmallFilesystem } from './mounts.ts';
import { failureOf, useTestState } from './state.ts';
import { SCALE } from '../../scale.ts';

/** Space for a boot; a guest that writes fills it soon. */
const SMALL = '48m';
const LARGE = '2g';
/** From the write that fails to the error: events tell the owner, a poll tells all others. */
const NOTICED_MS = 15_000 * SCALE;
/** Writes more than there is space for, past the guest's page cache. */
const fillBy = (file: string): string =>
  `dd if=/dev/urandom of=/var/tmp/${file} bs=1M count=120 oflag=direct && sync`;

const state = useTestState();
const obstacle = mountObstacle();
let disk: SmallFilesystem;
let paths: StatePaths;

beforeAll(async () => {
  if (obstacle !== undefined) return;
  disk = await mountSmall(join(state.box.dir, 'small'), SMALL);
  await symlink(join(resolvePaths().dataDir, 'images'), join(disk.dir, 'images'));
  await mkdir(join(disk.dir, 'vms'));
  paths = { ...state.paths, dataDir: disk.dir };
});
afterAll(async () => {
  await disk?.[Symbol.asyncDispose]();
});

describe.skipIf(obstacle !== undefined)('the owner of a VM', () => {
  let vm: Vm;
  beforeAll(async () => {
    await disk.remount(`size=${SMALL}`);
    vm = await state.create({ paths });
  });
  afterAll(() => vm.close());

  it('gets no snapshot that would fill the disk, and the guest goes on', async () => {
    expect(await failureOf(vm.snapshots.create('big'))).toMatchObject({
      name: 'HostError',
      code: 'ERR_HOST_DISK_FULL',
      vmId: vm.id,
      hint: expect.stringContaining('Free space'),
    });
    expect(await vm.snapshots.list()).toEqual([]);
    expect((await vm.commands.run('echo goes on')).stdout).toBe('goes on\n');
  });

  it('is told, and the guest goes on when there is space again', async () => {
    const writer = await vm.commands.run(fillBy('big'), {
      background: true,
      user: 'root',
      timeoutMs: 0,
    });
    const idle = failureOf(vm.commands.run('sleep 800', { timeoutMs: 0 }));
    const startedAt = performance.now();
    const error = await failureOf(writer.wait());
    expect(error).toBeInstanceOf(HostError);
    expect(error).toMatchObject({
      code: 'ERR_HOST_DISK_FULL',
      vmId: vm.id,
      hint: expect.stringMatching(/Free space.*qmp-agent resume/),
    });
    expect(performance.now() - startedAt).toBeLessThan(NOTICED_MS + 30_000 * SCALE);
    expect(await idle).toMatchObject({ code: 'ERR_HOST_DISK_FULL' });
    expect(await failureOf(vm.commands.run('true'))).toMatchObject({ code: 'ERR_HOST_DISK_FULL' });
    expect(await vm.info()).toMatchObject({
      state: 'paused',
      stateDetail: expect.stringContaining('disk is full'),
    });

    await disk.remount(`size=${LARGE}`);
    await vm.resume();
    expect(vm.state).toBe('running');
    expect(vm.fault.aborted).toBe(false);
    // The command in the background was kept, and had no error: the write waited.
    const again = await vm.commands.connect(writer.pid).catch(() => undefined);
    await again?.wait();
    const check = 'stat -c %s /var/tmp/big; dmesg | grep -ciE "I/O error|EXT4-fs error"';
    const { stdout } = await vm.commands.run(check, { user: 'root', reject: false });
    expect(stdout).toBe(`${120 * 2 ** 20}\n0\n`);
  });

  it.for(['park', 'take'])('forks it onto a disk that is full at "%s": it goes on', async (at) => {
    await disk.remount(`size=${LARGE}`);
    const writer = await vm.commands.run(
      'while :; do dd if=/dev/zero of=/var/tmp/again bs=1M count=8 oflag=direct 2>/dev/null; done',
      { background: true, user: 'root', timeoutMs: 0 },
    );
    const fill = (message: unknown) => {
      const { operation, step } = message as StepMessage;
      if (operation === 'fork' && step === at) disk.shrinkSync();
    };
    subscribe(STEP_CHANNEL, fill);
    try {
      expect(await failureOf(vm.fork())).toMatchObject({ code: 'ERR_HOST_DISK_FULL' });
    } finally {
      unsubscribe(STEP_CHANNEL, fill);
      await disk.remount(`size=${LARGE}`);
    }
    // By itself: nobody has to resume it.
    expect(await vm.info()).toMatchObject({ state: 'running', stateDetail: undefined });
    expect((await vm.commands.run('echo goes on')).stdout).toBe('goes on\n');
    expect(vm.fault.aborted).toBe(false);
    expect((await vm.commands.list()).map(({ pid }) => pid)).toContain(writer.pid);
    const again = await vm.commands.connect(writer.pid);
    await again.kill();
    expect(await Vm.list({ paths })).toHaveLength(1);
    expect(await readdir(join(disk.dir, 'checkpoints'))).toEqual([]);
  });

  it('is told again when that is full too, and can throw the VM away', async () => {
    await disk.fill();
    // Beside what is there: what takes the place of a removed file can need no space on the host.
    const error = await failureOf(vm.commands.run(fillBy('more'), { user: 'root', timeoutMs: 0 }));
    expect(error).toMatchObject({ code: 'ERR_HOST_DISK_FULL' });
    await vm.close();
    await disk.free();
    expect(await Vm.list({ paths })).toEqual([]);
  });
});

describe.skipIf(obstacle !== undefined)('a VM that stays', () => {
  let vm: Vm;
  beforeAll(async () => {
    await disk.free(); // where a test before has failed
    await disk.remount(`size=${SMALL}`);
    vm = await state.create({ paths, persistent: true });
  });
  afterAll(async () => {
    await vm.remove({ force: true });
    await vm.close();
  });

  it('tells whoever waits, and whoever comes later', async () => {
    const writer = failureOf(vm.commands.run(fillBy('big'), { user: 'root', timeoutMs: 0 }));
    expect(await writer).toMatchObject({ name: 'HostError', code: 'ERR_HOST_DISK_FULL' });
    const env = { ...state.box.env, QMP_AGENT_STATE_DATA_DIR: disk.dir };
    const startedAt = performance.now();
    const result = await qmpAgent(['exec', vm.id, '--', 'true'], { env });
    expect(performance.now() - startedAt).toBeLessThan(NOTICED_MS);
    expect(result.exitCode).toBe(125);
    expect(result.stderr).toMatch(/disk is full\nhint: Free space/);
  });

  it('goes on by another process’s word, and this one notices', async () => {
    await disk.remount(`size=${LARGE}`);
    const env = { ...state.box.env, QMP_AGENT_STATE_DATA_DIR: disk.dir };
    const resumed = await qmpAgent(['resume', vm.id], { env });
    expect(resumed.stderr).toBe('');
    await expect.poll(() => vm.fault.aborted, { timeout: NOTICED_MS }).toBe(false);
    expect((await vm.commands.run('echo goes on')).stdout).toBe('goes on\n');
  });

  it('can be stopped on a full disk', async () => {
    await disk.fill();
    await vm.stop();
    expect(vm.state).toBe('stopped');
    await disk.free();
    expect((await vm.info()).state).toBe('stopped');
  });
});
