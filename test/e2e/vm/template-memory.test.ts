/** Templates whose memory is in a place of its own: on a tmpfs, in huge pages. */
import { mkdir, mkdtemp, readdir, readFile, rm, statfs, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { execa } from 'execa';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createTemplate } from '../../../src/vm/template/create.ts';
import { TemplateStore } from '../../../src/vm/template/store.ts';
import { diskUsage } from '../../../src/vm/usage/disk-usage.ts';
import { Vm } from '../../../src/vm/vm.ts';
import { qmpAgent } from '../../integration/cli/command.ts';
import { BOOT_MS, failureOf, useTestState } from './state.ts';

const MEMORY_MIB = 256;
const HUGE_MIB = 2;
const NR_HUGEPAGES = '/proc/sys/vm/nr_hugepages';
/** For a template and one clone of it. */
const PAGES = (2 * MEMORY_MIB) / HUGE_MIB;

const state = useTestState();
let store: TemplateStore;
let dir: string;
const clone = (name: string) => Vm.fromTemplate(name, { paths: state.paths, timeoutMs: BOOT_MS });
const echo = async (vm: Vm) => (await vm.commands.run('echo on')).stdout;

beforeAll(async () => {
  store = new TemplateStore(state.paths);
  dir = await mkdtemp('/dev/shm/qmp-agent-test-');
});
afterAll(() => rm(dir, { recursive: true, force: true }));

describe('memory on a tmpfs', () => {
  it('is put there, cloned from, told of, and removed with its template', async () => {
    const create = ['template', 'create', 'quick', '-m', `${MEMORY_MIB}M`, '--memory-dir', dir];
    const made = await qmpAgent(create, { env: state.box.env, timeoutMs: BOOT_MS });
    expect(made).toMatchObject({ exitCode: 0, stdout: 'quick' });
    expect(await readdir(dir)).toHaveLength(1);
    expect(await store.inspect('quick')).toMatchObject({ memoryPlace: { dir, medium: 'tmpfs' } });
    const { templates, others } = await diskUsage(state);
    expect(templates).toMatchObject([{ name: 'quick', memoryPlace: { dir } }]);
    expect(templates[0]?.usedBytes).toBeGreaterThan(templates[0]?.memoryBytes ?? 0);
    const left = others.find(({ path }) => path.endsWith('templates'))?.usedBytes ?? 0;
    expect(left).toBeLessThan(65_536); // the directory itself: what is listed is not counted twice
    {
      await using vm = await clone('quick');
      expect(await echo(vm)).toBe('on\n');
      const [child] = await vm.fork({ timeoutMs: BOOT_MS });
      if (child === undefined) throw new Error('no child');
      await using _child = child;
      expect(await echo(child)).toBe('on\n');
    }
    const [file = ''] = await readdir(dir);
    await rm(join(dir, file)); // as a reboot does
    const error = await failureOf(clone('quick'));
    expect(error).toMatchObject({
      code: 'ERR_TEMPLATE_CORRUPT',
      message: expect.stringContaining(`is gone from ${dir}`),
      hint: expect.stringContaining('template create quick --force'),
    });
    expect(await store.list()).toMatchObject([{ name: 'quick', memoryPlace: { dir } }]);
    await writeFile(join(dir, file), ''); // one that is there again goes, too
    await store.remove('quick');
    expect(await readdir(dir)).toEqual([]);
  });

  it('leaves nothing where a template cannot be made', async () => {
    const o = { paths: state.paths, timeoutMs: BOOT_MS, memoryMib: MEMORY_MIB };
    const none = failureOf(createTemplate('none', { ...o, memoryDir: join(dir, 'none') }));
    expect(await none).toMatchObject({ code: 'ERR_CONFIG', field: 'state.memoryDir' });
    const small = join(dir, 'small');
    await mkdir(small);
    const mounted = await execa('mount', ['-t', 'tmpfs', '-o', 'size=8M', 'none', small], {
      reject: false,
    });
    if (mounted.failed) return; // not allowed here
    try {
      const full = await failureOf(createTemplate('full', { ...o, memoryDir: small }));
      expect(full).toMatchObject({
        code: 'ERR_HOST_DISK_FULL',
        message: expect.stringContaining(`does not fit into ${small}`),
      });
      expect(await readdir(small)).toEqual([]);
      expect(await store.list()).toEqual([]);
    } finally {
      await execa('umount', [small]);
    }
  });
});

describe('memory in huge pages', () => {
  it('is put there where there are enough, and cloned from', async (test) => {
    const before = (await readFile(NR_HUGEPAGES, 'latin1')).trim();
    const huge = join(dir, 'huge');
    await mkdir(huge);
    const mounted = await execa('mount', ['-t', 'hugetlbfs', 'none', huge], { reject: false });
    if (mounted.failed) test.skip('hugetlbfs cannot be mounted here');
    const o = { paths: state.paths, timeoutMs: BOOT_MS, memoryMib: MEMORY_MIB, memoryDir: huge };
    try {
      expect((await statfs(huge)).bsize).toBe(HUGE_MIB * 2 ** 20);
      await writeFile(NR_HUGEPAGES, '8');
      expect(await failureOf(createTemplate('large', o))).toMatchObject({
        code: 'ERR_HOST_DISK_FULL',
        message: expect.stringContaining('too few huge pages'),
      });
      expect(await failureOf(createTemplate('large', { ...o, memoryMib: 257 }))).toMatchObject({
        field: 'vm.memoryMib',
      });
      await writeFile(NR_HUGEPAGES, String(PAGES));
      if (Number(await readFile(NR_HUGEPAGES, 'latin1')) < PAGES) test.skip('no huge pages here');
      const { memoryPlace } = await createTemplate('large', o);
      expect(memoryPlace).toEqual({ dir: huge, medium: 'hugetlbfs' });
      {
        await using vm = await clone('large');
        expect(await echo(vm)).toBe('on\n');
        expect(await failureOf(clone('large'))).toMatchObject({
          code: 'ERR_HOST_DISK_FULL',
          message: expect.stringContaining('for a clone'),
        });
        expect(await Vm.list(state)).toHaveLength(1);
      }
      await store.remove('large');
      expect(await readdir(huge)).toEqual([]);
    } finally {
      await writeFile(NR_HUGEPAGES, before);
      await execa('umount', [huge], { reject: false });
    }
  });
});
