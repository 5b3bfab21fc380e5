/** The directory of templates, with what stands on them and what dead processes leave. */
import { chmod, mkdir, mkdtemp, readdir, rm, symlink, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { ownIdentity } from '../../../src/vm/process-identity.ts';
import { openImageStore } from '../../../src/vm/image-store.ts';
import { writeRecord, type VmConfig, type VmRecord } from '../../../src/vm/record.ts';
import { ensureStateDirs, STATE_SCHEMA } from '../../../src/vm/state-dir.ts';
import { linkMemory } from '../../../src/vm/template/memory-dir.ts';
import { sha256, templateFiles } from '../../../src/vm/template/manifest.ts';
import { TemplateStore } from '../../../src/vm/template/store.ts';
import { readTree } from '../../../src/vm/tree.ts';
import { Vm } from '../../../src/vm/vm.ts';
import { vmPaths } from '../../../src/vm/vm-paths.ts';

const VM_ID = 'aaaaaaaaaaaa';
const MEMORY_MIB = 1;
let paths: { dataDir: string; runtimeDir: string; cacheDir: string };
let store: TemplateStore;

beforeEach(async () => {
  const dir = await mkdtemp(join(tmpdir(), 'qmp-agent-templates-'));
  paths = { dataDir: join(dir, 'data'), runtimeDir: join(dir, 'run'), cacheDir: join(dir, 'c') };
  await ensureStateDirs(paths);
  store = new TemplateStore(paths);
});
afterEach(() => rm(join(paths.dataDir, '..'), { recursive: true }));

/** Publishes a template of empty files. */
async function publish(
  id: string,
  replace = false,
  more: object = {},
  memoryDir?: string,
): Promise<void> {
  await using workshop = await store.openWorkshop(id);
  const files = templateFiles(workshop.dir);
  if (memoryDir !== undefined) await linkMemory(workshop.dir, memoryDir, id);
  for (const path of [files.memoryPath, files.statePath, files.diskPath]) await writeFile(path, '');
  await truncate(files.memoryPath, MEMORY_MIB * 2 ** 20);
  const manifest = {
    ...{ schema: STATE_SCHEMA, name: 't', id, ports: 2, backingPaths: ['/i/rootfs.qcow2'] },
    ...{ config: { rootfsPath: '/i/rootfs.qcow2', memoryMib: MEMORY_MIB } },
    ...{ memoryBytes: MEMORY_MIB * 2 ** 20, stateSha256: sha256(Buffer.alloc(0)), ...more },
  };
  await writeFile(files.manifestPath, JSON.stringify(manifest));
  await store.publish('t', workshop.dir, { replace });
}

/** A clone, as its record has it. */
async function clone(change: Partial<VmRecord>): Promise<void> {
  const files = vmPaths(paths, VM_ID);
  await mkdir(files.dir, { recursive: true });
  const template = { diskPaths: [templateFiles(store.dirOf('t')).diskPath] };
  const record = { schema: STATE_SCHEMA, id: VM_ID, createdAt: 't', state: 'running' };
  const config = { rootfsPath: '/i/rootfs.qcow2', template };
  await writeRecord(files, { ...record, config, ...change } as unknown as VmRecord);
}

describe('memory in a directory of its own', () => {
  it('goes with its template, half made or whole, and nothing else does', async () => {
    const dir = join(paths.dataDir, '..', 'memory');
    await mkdir(dir);
    const half = join(paths.dataDir, 'templates', '.00000000000a.tmp'); // of a process that was killed
    await mkdir(half, { recursive: true });
    await writeFile(await linkMemory(half, dir, '00000000000a'), '');
    await writeFile(join(dir, 'other'), '');
    const stray = join(paths.dataDir, 'templates', '.00000000000b.tmp');
    await mkdir(stray);
    await symlink(join(dir, 'other'), templateFiles(stray).memoryPath);
    expect(await store.removeAbandoned()).toHaveLength(2);
    expect(await readdir(dir)).toEqual(['other']);
    await publish('00000000000c', false, {}, dir);
    expect(await readdir(dir)).toEqual(['other', 'qmp-agent-00000000000c.memory']);
    expect(await store.inspect('t')).toMatchObject({ memoryPlace: { dir } });
    await publish('00000000000d', true);
    expect(await readdir(dir)).toEqual(['other']);
  });
});

describe('a name', () => {
  it('is given once, and to another template when asked', async () => {
    await publish('000000000001');
    await expect(publish('000000000002')).rejects.toMatchObject({ code: 'ERR_CONFIG' });
    expect((await store.get('t')).manifest.id).toBe('000000000001');
    await publish('000000000003', true);
    expect((await store.get('t')).manifest.id).toBe('000000000003');
    await store.remove('t');
    expect(await readdir(join(paths.dataDir, 'templates'))).toEqual(['.lock']);
  });

  it('is not taken from a clone that lives, and no dead one holds it', async () => {
    await publish('000000000001');
    const dead = { ...ownIdentity(), startTicks: 1 };
    await clone({ owner: ownIdentity() });
    await expect(publish('000000000002', true)).rejects.toThrow(`in use by ${VM_ID}`);
    await expect(store.remove('t')).rejects.toMatchObject({ code: 'ERR_TEMPLATE_IN_USE' });
    await clone({ owner: dead });
    await store.remove('t');
    expect(await store.list()).toEqual([]);
  });
});

describe('a template whose files are gone', () => {
  it('is listed with its fault, and still holds what it stands on and is held by its clones', async () => {
    await publish('000000000001');
    await rm(templateFiles(store.dirOf('t')).statePath);
    await clone({ owner: ownIdentity() });
    expect(await store.list()).toEqual([
      expect.objectContaining({
        ...{ name: 't', usedBy: [VM_ID] },
        defect: expect.stringContaining("its devices' state"),
      }),
    ]);
    expect(await store.onImage('/i')).toEqual(['t']);
    await expect(store.remove('t')).rejects.toMatchObject({ code: 'ERR_TEMPLATE_IN_USE' });
  });
});

describe('an image', () => {
  it('is held by VMs that live, and by no dead one', async () => {
    const image = join(paths.dataDir, 'images/app');
    await mkdir(join(image, '0123456789ab-0000'), { recursive: true });
    const rootfsPath = join(image, '0123456789ab-0000/rootfs.qcow2');
    const images = openImageStore(paths);
    const config = { rootfsPath } as VmConfig;
    await clone({ config, owner: ownIdentity() });
    await expect(images.remove('app')).rejects.toMatchObject({ code: 'ERR_IMAGE_IN_USE' });
    await clone({ config, owner: { ...ownIdentity(), startTicks: 1 } });
    await images.remove('app');
  });
});

describe('what dead processes leave', () => {
  it('goes; what a living one makes stays', async () => {
    await using workshop = await store.openWorkshop('000000000001');
    const dead = join(paths.dataDir, 'templates', '.000000000002.tmp');
    await mkdir(dead);
    const reaped = await Vm.gc({ paths });
    expect(reaped.map(({ path }) => path)).toEqual([dead]);
    expect(await readdir(workshop.dir)).toEqual(['lock']);
  });
});

describe('what is not ours, or not whole', () => {
  it.each([
    ['no disks', { backingPaths: undefined }],
    ['no ports', { ports: '2' }],
    ['memory of another size', { memoryBytes: 4096 }],
  ])('a manifest with %s is none', async (_what, more) => {
    await publish('000000000001', false, more);
    await expect(store.get('t')).rejects.toMatchObject({ code: 'ERR_TEMPLATE_CORRUPT' });
    const defect = expect.stringContaining('is broken: its manifest is none');
    expect(await store.list()).toEqual([expect.objectContaining({ name: 't', defect })]);
    expect(await readTree(paths)).toEqual([]); // what cannot be read keeps nothing else from being shown
    await store.remove('t');
  });

  it('a directory that others may write to is not used', async () => {
    await publish('000000000001');
    await chmod(join(paths.dataDir, 'templates'), 0o777);
    await expect(store.lock()).rejects.toMatchObject({ code: 'ERR_STATE_DIR' });
  });
});
