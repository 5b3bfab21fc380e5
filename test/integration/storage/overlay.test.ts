import { mkdtemp, readFile, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { execa } from 'execa';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ConfigError, ImageError, StateDirError } from '../../../src/errors.ts';
import { createOverlay, usedBytes } from '../../../src/storage/index.ts';

const MIB = 2 ** 20;
let dir: string;
let backing: string;

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'qmp-agent-overlay-'));
  backing = join(dir, 'base.qcow2');
  await execa('qemu-img', ['create', '-q', '-f', 'qcow2', backing, '64M']);
  await execa('qemu-io', ['-c', 'write -P 7 3M 1M', backing]);
});
afterAll(() => rm(dir, { recursive: true, force: true }));

describe('createOverlay', () => {
  it('makes what qemu-img checks without complaint, before and after writes', async () => {
    const path = join(dir, 'good.qcow2');
    await createOverlay({ path, backing, sizeBytes: 10_000 * MIB });
    await execa('qemu-img', ['check', '-q', path]);
    const info = JSON.parse((await execa('qemu-img', ['info', '--output=json', path])).stdout);
    expect(info).toMatchObject({
      format: 'qcow2',
      'virtual-size': 10_000 * MIB,
      'backing-filename': backing,
      'backing-filename-format': 'qcow2',
    });
    const base = await readFile(backing);
    const io = await execa('qemu-io', [
      '-c',
      'read -P 7 3M 1M',
      '-c',
      'write -P 9 3M 1M',
      '-c',
      'write -P 1 9000M 1M',
      '-c',
      'read -P 9 3M 1M',
      path,
    ]);
    expect(io.stdout).not.toMatch(/fail|error/i);
    await execa('qemu-img', ['check', '-q', path]);
    expect((await readFile(backing)).equals(base)).toBe(true);
    expect(await usedBytes(path)).toBeGreaterThan(2 * MIB);
  });

  it('takes the size of the image where none is given', async () => {
    const overlay = await createOverlay({ path: join(dir, 'same.qcow2'), backing });
    expect(overlay.virtualBytes).toBe(64 * MIB);
  });

  it('names what is wrong', async () => {
    const path = join(dir, 'bad.qcow2');
    await expect(createOverlay({ path, backing, sizeBytes: MIB })).rejects.toBeInstanceOf(
      ConfigError,
    );
    await expect(createOverlay({ path, backing, sizeBytes: 2 ** 42 })).rejects.toBeInstanceOf(
      ConfigError,
    );
    await expect(createOverlay({ path, backing: join(dir, 'none') })).rejects.toMatchObject({
      code: 'ERR_IMAGE_CORRUPT',
    });
    const garbage = join(dir, 'garbage.qcow2');
    await writeFile(garbage, 'no image');
    await expect(createOverlay({ path, backing: garbage })).rejects.toBeInstanceOf(ImageError);
    await truncate(garbage, 0);
    await expect(createOverlay({ path, backing: garbage })).rejects.toBeInstanceOf(ImageError);
    await expect(createOverlay({ path: join(dir, 'no', 'dir'), backing })).rejects.toBeInstanceOf(
      StateDirError,
    );
  });
});
