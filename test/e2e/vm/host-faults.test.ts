/** What is in the way before a guest runs: each a named error with a hint, and nothing is left. */
import { access, chmod, cp, mkdir, readdir, readFile, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { execa } from 'execa';
import { beforeAll, afterEach, describe, expect, it } from 'vitest';
import { resolvePaths } from '../../../src/config/paths.ts';
import {
  ConfigError,
  HostError,
  ImageError,
  LaunchError,
  NotFoundError,
  StateDirError,
} from '../../../src/errors.ts';
import type { StatePaths, VmCreateOptions } from '../../../src/vm/api.ts';
import { openImageStore } from '../../../src/vm/image-store.ts';
import { ensureStateDirs } from '../../../src/vm/state-dir.ts';
import { Vm } from '../../../src/vm/vm.ts';
import { qmpAgent } from '../../integration/cli/command.ts';
import { expectNothingLeft } from '../cli/host.ts';
import { mountObstacle, mountSmall } from './mounts.ts';
import { BOOT_MS, failureOf, useTestState } from './state.ts';
import { SCALE } from '../../scale.ts';

/** None of these may wait for a guest. */
const AT_ONCE_MS = 5_000 * SCALE;

const state = useTestState();
afterEach(() => expectNothingLeft(state.box));

const exists = (path: string) =>
  access(path).then(
    () => true,
    () => false,
  );

/** The error of a VM that cannot be made, soon. */
async function refusal(
  o: VmCreateOptions,
  withinMs = AT_ONCE_MS,
): Promise<Error & { hint?: string }> {
  const startedAt = performance.now();
  const error = await failureOf(state.create(o));
  expect(performance.now() - startedAt).toBeLessThan(withinMs);
  expect((error as { hint?: string }).hint).toMatch(/\S/);
  return error;
}

/** A program in the sandbox. */
async function script(name: string, body: string): Promise<string> {
  const path = join(state.box.dir, name);
  await writeFile(path, `#!/bin/sh\n${body}\n`);
  await chmod(path, 0o755);
  return path;
}

describe('the host', () => {
  it('without KVM: asking for it is an error that says why', async (ctx) => {
    if (await exists('/dev/kvm')) ctx.skip('this host has /dev/kvm');
    const error = await refusal({ accel: 'kvm' });
    expect(error).toBeInstanceOf(HostError);
    expect(error).toMatchObject({ code: 'ERR_HOST_KVM' });
    expect(error.message).toContain('/dev/kvm does not exist');
    expect(error.hint).toMatch(/modprobe|nested/);
  });

  it('without vhost-vsock: asking for it, or for a CID, is an error', async (ctx) => {
    if (await exists('/dev/vhost-vsock')) ctx.skip('this host has /dev/vhost-vsock');
    for (const o of [{ channel: 'vsock' } as const, { cid: 77 }]) {
      const error = await refusal(o);
      expect(error).toMatchObject({ name: 'HostError', code: 'ERR_HOST_VSOCK' });
      expect(error.hint).toContain('vhost_vsock');
    }
  });

  it.each([
    ['is missing', '/nowhere/qemu', /\/nowhere\/qemu/],
    ['is not in PATH', 'qemu-system-none', /qemu-system-none is not in PATH/],
  ])('whose QEMU %s', async (_what, qemuPath, text) => {
    const error = await refusal({ qemuPath });
    expect(error).toMatchObject({ name: 'HostError', code: 'ERR_HOST_QEMU' });
    expect(error.message).toMatch(text);
    expect(error.hint).toContain('apt install');
  });

  it.each([
    ['is too old', 'echo "QEMU emulator version 6.2.0 (Debian)"', /6\.2\.0.*7\.2/],
    ['is something else', 'echo "hello"', /--version.*hello/],
    ['cannot start', 'echo "cannot load libfoo.so" >&2; exit 127', /--version.*libfoo/],
  ])('whose QEMU %s', async (what, body, text) => {
    const error = await refusal({ qemuPath: await script(what.replaceAll(' ', '-'), body) });
    expect(error).toMatchObject({ name: 'HostError', code: 'ERR_HOST_QEMU' });
    expect(error.message).toMatch(text);
  });

  it('without QEMU in PATH: the command ends with 125 and says what to install', async () => {
    const env = { ...state.box.env, PATH: state.box.dir };
    const result = await qmpAgent(['run', '--', 'true'], { env });
    expect(result.exitCode).toBe(125);
    expect(result.stderr).toMatch(/qemu-system-x86_64 is not in PATH/);
    expect(result.stderr).toMatch(/hint: .*apt install/);
  });

  it('with less memory than asked for: QEMU’s own words', async () => {
    const error = await refusal({ memoryMib: 1_048_576 });
    expect(error).toBeInstanceOf(LaunchError);
    expect(error).toMatchObject({ code: 'ERR_LAUNCH', exitCode: 1 });
    expect(error.message).toMatch(/allocate memory/);
    expect((error as LaunchError).argv).toContain('-nodefaults');
  });

  it(
    'where io_uring works for one QEMU, and not for the next: that one goes by threads',
    async () => {
      const spent = `case "$*" in *'-M none'*) ;; *aio=io_uring*) echo 'Unable to use io_uring: Cannot allocate memory' >&2; exit 1 ;; esac
exec qemu-system-x86_64 "$@"`;
      const vm = await state.create({ qemuPath: await script('spent', spent) });
      await vm.commands.run(['true']);
      const { pid } = await vm.info();
      const argv = (await readFile(`/proc/${pid}/cmdline`, 'utf8')).split('\0');
      expect(argv.filter((word) => word.includes('aio='))).not.toEqual([]);
      expect(argv.filter((word) => word.includes('aio=io_uring'))).toEqual([]);
      await vm.close();
    },
    BOOT_MS,
  );

  it('with a runtime directory too deep for sockets', async () => {
    const runtimeDir = join(state.box.dir, 'r'.repeat(80));
    const error = await refusal({ paths: { ...state.paths, runtimeDir } });
    expect(error).toMatchObject({ name: 'HostError', code: 'ERR_HOST_SOCKET' });
    expect(error.message).toMatch(/has \d+ bytes.*107/);
    expect(error.hint).toContain('QMP_AGENT_STATE_RUNTIME_DIR');
  });

  it('is not even asked where the signal was aborted before', async () => {
    const reason = new Error('not now');
    const error = await failureOf(state.create({ signal: AbortSignal.abort(reason) }));
    expect(error).toBe(reason);
  });
});

describe('the image', () => {
  let paths: StatePaths;
  let sizes: Record<string, { sizeBytes: number; sha256: string }>;
  const imageDir = (name: string) => join(paths.dataDir, 'images', name, 'one');

  /** An image like `base`, its files empty but of the right size. */
  async function imageLikeBase(name: string, change: (dir: string) => Promise<void>) {
    const dir = imageDir(name);
    await mkdir(dir, { recursive: true });
    await symlink('one', join(dir, '../current'));
    const base = join(resolvePaths().dataDir, 'images/base/current');
    await cp(join(base, 'manifest.json'), join(dir, 'manifest.json'));
    for (const [file, { sizeBytes }] of Object.entries(sizes))
      await execa('truncate', ['-s', String(sizeBytes), join(dir, file)]);
    await change(dir);
  }

  beforeAll(async () => {
    const dataDir = join(state.box.dir, 'broken-images');
    paths = { ...state.paths, dataDir };
    const manifest = join(resolvePaths().dataDir, 'images/base/current/manifest.json');
    ({ files: sizes } = JSON.parse(await readFile(manifest, 'utf8')));
  });

  it('that there is none of: the names of those there are', async () => {
    const error = await refusal({ image: 'no-such-image' });
    expect(error).toBeInstanceOf(NotFoundError);
    expect(error).toMatchObject({ code: 'ERR_NOT_FOUND', kind: 'image', query: 'no-such-image' });
    expect((error as NotFoundError).candidates).toContain('base');
  });

  it.each<[string, (dir: string) => Promise<unknown>, RegExp]>([
    ['truncated', (dir) => execa('truncate', ['-s', '-1', join(dir, 'rootfs.qcow2')]), /bytes/],
    ['headless', () => Promise.resolve(), /not a qcow2/],
    ['without-kernel', (dir) => execa('rm', [join(dir, 'vmlinux')]), /vmlinux is missing/],
    ['unlisted', (dir) => execa('rm', [join(dir, 'manifest.json')]), /manifest cannot be read/],
    ['garbled', (dir) => writeFile(join(dir, 'manifest.json'), '{"schema":1'), /cannot be read/],
    ['hollow', (dir) => writeFile(join(dir, 'manifest.json'), '{"schema":1}'), /is not one/],
    ['dangling', (dir) => execa('rm', ['-r', dir]), /./],
  ])('that is %s', async (name, damage, text) => {
    await imageLikeBase(name, async (dir) => void (await damage(dir)));
    const error = await refusal({ image: name, paths });
    if (name === 'dangling') {
      expect(error).toBeInstanceOf(NotFoundError);
    } else {
      expect(error).toBeInstanceOf(ImageError);
      expect(error).toMatchObject({ code: 'ERR_IMAGE_CORRUPT' });
    }
    expect(error.message).toMatch(text);
    expect(error.hint).toContain('image build');
    expect(await readdir(join(paths.dataDir, 'vms'))).toEqual([]);
  });

  it('whose contents are not those of the manifest: found by a check of the checksums', async () => {
    await imageLikeBase('altered', async (dir) => {
      const manifest = JSON.parse(await readFile(join(dir, 'manifest.json'), 'utf8'));
      for (const file of Object.keys(sizes)) {
        await writeFile(join(dir, file), 'x');
        manifest.files[file].sizeBytes = 1;
      }
      await writeFile(join(dir, 'manifest.json'), JSON.stringify(manifest));
    });
    const error = await failureOf(openImageStore(paths).verify('altered'));
    expect(error).toMatchObject({ name: 'ImageError', code: 'ERR_IMAGE_CORRUPT' });
    expect(error.message).toMatch(/SHA-256/);
  });

  it('made by a later version', async () => {
    await imageLikeBase('later', (dir) => writeFile(join(dir, 'manifest.json'), '{"schema":99}'));
    const error = await refusal({ image: 'later', paths });
    expect(error).toBeInstanceOf(StateDirError);
    expect(error.message).toContain('later version');
  });

  it('with a name that leads elsewhere', async () => {
    const error = await refusal({ image: '../../etc' });
    expect(error).toBeInstanceOf(ConfigError);
  });
});

describe('the state directory', () => {
  it('of a later version is left alone', async () => {
    const dataDir = join(state.box.dir, 'later');
    const paths = { ...state.paths, dataDir };
    await mkdir(dataDir);
    await writeFile(join(dataDir, 'state.json'), '{"schema":2,"more":"things"}');
    for (const call of [
      () => Vm.create({ paths }),
      () => Vm.list({ paths }),
      () => Vm.connect('x', { paths }),
      () => Vm.gc({ paths }),
    ]) {
      const error = await failureOf(call());
      expect(error).toBeInstanceOf(StateDirError);
      expect(error).toMatchObject({ code: 'ERR_STATE_DIR', path: join(dataDir, 'state.json') });
      expect((error as StateDirError).hint).toContain('Upgrade');
    }
    expect(await readdir(dataDir)).toEqual(['state.json']);
    const env = { ...state.box.env, QMP_AGENT_STATE_DATA_DIR: dataDir };
    const result = await qmpAgent(['run', '--', 'true'], { env });
    expect(result.exitCode).toBe(125);
    expect(result.stderr).toMatch(/later version[^]*hint: Upgrade/);
  });

  it('with a record of a later version: that VM is left alone, the others are not', async () => {
    const id = 'feedfeedfeed';
    const dir = join(state.paths.dataDir, 'vms', id);
    await mkdir(dir, { recursive: true });
    await writeFile(join(dir, 'vm.json'), JSON.stringify({ schema: 7, id }));
    await execa('touch', ['-d', '1 hour ago', dir]);
    expect(await Vm.list(state)).toMatchObject([{ id, state: 'broken' }]);
    expect(await Vm.gc(state)).toEqual([]);
    for (const call of [
      () => Vm.connect(id, state),
      () => Vm.kill(id, state),
      () => Vm.inspect(id, state),
    ]) {
      const error = await failureOf(call());
      expect(error).toMatchObject({ name: 'StateDirError', vmId: id });
      expect((error as StateDirError).hint).toContain('Upgrade');
    }
    expect(await readdir(dir)).toEqual(['vm.json']);
    await execa('rm', ['-r', dir]);
  });

  describe('on a file system of its own', () => {
    const obstacle = mountObstacle();

    /** A tmpfs as data directory, with the host's images. */
    async function smallState(size: string) {
      const disk = await mountSmall(join(state.box.dir, 'small'), size);
      await symlink(join(resolvePaths().dataDir, 'images'), join(disk.dir, 'images'));
      return { disk, paths: { ...state.paths, dataDir: disk.dir } };
    }

    it('that is read-only from the start', async (ctx) => {
      ctx.skip(obstacle !== undefined, obstacle);
      const { disk, paths } = await smallState('1m');
      await using _ = disk;
      await disk.remount('ro');
      const error = await refusal({ paths });
      expect(error).toBeInstanceOf(StateDirError);
      expect(error.hint).toMatch(/read-only.*state\.dataDir/);
      const env = { ...state.box.env, QMP_AGENT_STATE_DATA_DIR: disk.dir };
      const result = await qmpAgent(['run', '--', 'true'], { env });
      expect(result.exitCode).toBe(125);
      expect(result.stderr).toContain('read-only');
    });

    it('that became read-only', async (ctx) => {
      ctx.skip(obstacle !== undefined, obstacle);
      const { disk, paths } = await smallState('1m');
      await using _ = disk;
      await ensureStateDirs(paths);
      await disk.remount('ro');
      for (const o of [{}, { name: 'box' }, { persistent: true }]) {
        const error = await refusal({ ...o, paths });
        expect(error).toBeInstanceOf(StateDirError);
        expect(error).toMatchObject({ code: 'ERR_STATE_DIR' });
        expect(error.hint).toMatch(/read-only/);
      }
      expect(await Vm.list({ paths })).toEqual([]);
      expect(await Vm.gc({ paths })).toEqual([]);
    });

    it('whose runtime directory is read-only', async (ctx) => {
      ctx.skip(obstacle !== undefined, obstacle);
      await using disk = await mountSmall(join(state.box.dir, 'small'), '1m');
      await disk.remount('ro');
      for (const runtimeDir of [disk.dir, join(disk.dir, 'run')]) {
        const error = await refusal({ paths: { ...state.paths, runtimeDir } });
        expect(error).toBeInstanceOf(StateDirError);
        expect(error.hint).toMatch(/read-only/);
      }
    });

    it('whose cache is read-only, or full', async (ctx) => {
      ctx.skip(obstacle !== undefined, obstacle);
      await using disk = await mountSmall(join(state.box.dir, 'small'), '1m');
      const paths = { ...state.paths, cacheDir: join(disk.dir, 'cache') };
      const full = await refusal({ paths }); // an initramfs has some MiB
      expect(full).toMatchObject({ name: 'HostError', code: 'ERR_HOST_DISK_FULL' });
      expect(await readdir(join(disk.dir, 'cache/initramfs'))).toEqual([]);
      await disk.remount('ro');
      const readOnly = await refusal({ paths });
      expect(readOnly).toMatchObject({ name: 'StateDirError', code: 'ERR_STATE_DIR' });
    });

    it.for(['4k', '16k', '64k'])('that has %s in all', async (size, ctx) => {
      ctx.skip(obstacle !== undefined, obstacle);
      const { disk, paths } = await smallState(size);
      await using _ = disk;
      // 64 KiB are enough until the guest writes for the first time.
      const error = await refusal({ paths }, BOOT_MS);
      expect(error).toBeInstanceOf(HostError);
      expect(error).toMatchObject({ code: 'ERR_HOST_DISK_FULL' });
      expect(error.hint).toMatch(/space/);
      expect(await readdir(join(disk.dir, 'vms'))).toEqual([]);
    });

    it('that is full', async (ctx) => {
      ctx.skip(obstacle !== undefined, obstacle);
      const { disk, paths } = await smallState('1m');
      await using _ = disk;
      await ensureStateDirs(paths);
      await disk.fill();
      for (const o of [{}, { name: 'box' }, { persistent: true }]) {
        const error = await refusal({ ...o, paths });
        expect(error).toMatchObject({ name: 'HostError', code: 'ERR_HOST_DISK_FULL' });
      }
      const env = { ...state.box.env, QMP_AGENT_STATE_DATA_DIR: disk.dir };
      const result = await qmpAgent(['run', '--', 'true'], { env });
      expect(result.exitCode).toBe(125);
      expect(result.stderr).toMatch(/no space left[^]*hint: /);
      expect(await Vm.list({ paths })).toEqual([]);
    });
  });
});
