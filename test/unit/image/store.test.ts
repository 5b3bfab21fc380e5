/** Which images may go. */
import { mkdir, mkdtemp, realpath, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { ImageStore } from '../../../src/image/index.ts';

const VERSION = '0123456789ab-0001';
let dir = '';

beforeEach(async () => {
  dir = await realpath(await mkdtemp(path.join(tmpdir(), 'qa-store-')));
  const version = path.join(dir, 'shared', 'app', VERSION);
  await mkdir(version, { recursive: true });
  await symlink(VERSION, path.join(dir, 'shared', 'app', 'current'));
  await symlink(path.join(dir, 'shared'), path.join(dir, 'images'));
  const empty = { sizeBytes: 0, sha256: '' };
  for (const name of ['vmlinux', 'rootfs.qcow2']) await writeFile(path.join(version, name), '');
  await writeFile(
    path.join(version, 'manifest.json'),
    JSON.stringify({
      schema: 1,
      id: '0123456789ab',
      virtualBytes: 1,
      kernelVersion: '6',
      recipeHash: '',
      files: { vmlinux: empty, 'rootfs.qcow2': empty },
    }),
  );
});
afterEach(() => rm(dir, { recursive: true, force: true }));

describe('an image store that a link leads to', () => {
  it('never removes what a VM stands on', async () => {
    const used = new Set<string>();
    const store = new ImageStore({
      imagesDir: path.join(dir, 'images'),
      cacheDir: path.join(dir, 'cache'),
      inUseBy: (version) => Promise.resolve(used.has(version) ? ['box'] : []),
    });
    const { rootfsPath } = await store.get('app'); // as VMs write it down
    used.add(path.dirname(rootfsPath));
    await expect(store.remove('app')).rejects.toMatchObject({ code: 'ERR_IMAGE_IN_USE' });
    expect((await stat(rootfsPath)).isFile()).toBe(true);
    used.clear();
    await store.remove('app');
    await expect(stat(rootfsPath)).rejects.toMatchObject({ code: 'ENOENT' });
  });
});
