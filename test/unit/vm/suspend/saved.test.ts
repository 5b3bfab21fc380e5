import { mkdir, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { HostError } from '../../../../src/errors.ts';
import { isSavedName, newSavedName } from '../../../../src/vm/ids.ts';
import type { VmRecord } from '../../../../src/vm/record.ts';
import {
  asNoSpace,
  requireSpace,
  savedFiles,
  savedInUse,
  sweepSaved,
} from '../../../../src/vm/suspend/saved.ts';

const record = (state: string, o: { memoryPath?: string; name?: string }) =>
  ({
    state,
    run: { memoryPath: o.memoryPath },
    suspended: o.name === undefined ? undefined : { name: o.name },
  }) as unknown as VmRecord;
const dead = () => false;
const alive = () => true;

describe('names of saved memory', () => {
  it('are no names of anything else in a VM’s directory', () => {
    expect(isSavedName(newSavedName())).toBe(true);
    for (const name of [
      'saved-',
      'saved-0123456',
      'saved-0123456g',
      '../saved-01234567',
      'lock',
      7,
    ])
      expect(isSavedName(name)).toBe(false);
  });
});

describe('savedInUse', () => {
  const name = 'saved-01234567';
  const { memoryPath } = savedFiles('/d/vms/x', name);

  it.each([
    ['what is suspended', record('suspended', { name }), dead, name],
    ['what a running QEMU stands on', record('running', { memoryPath }), alive, name],
    ['nothing, where that QEMU is gone', record('running', { memoryPath }), dead, undefined],
    ['nothing, of a VM that booted', record('running', {}), alive, undefined],
    [
      'nothing, of a clone that stands on its template',
      record('running', { memoryPath: '/d/templates/node/memory' }),
      alive,
      undefined,
    ],
    [
      'what is suspended, not what it stood on before',
      record('suspended', { name, memoryPath: '/d/vms/x/saved-76543210/memory' }),
      alive,
      name,
    ],
  ])('is %s', (_what, one, isRunning, wanted) => {
    expect(savedInUse(one, isRunning)).toBe(wanted);
  });
});

describe('on disk', () => {
  let dir: string;
  beforeEach(async () => {
    dir = await mkdtemp(join(tmpdir(), 'qmp-agent-saved-'));
  });
  afterEach(() => rm(dir, { recursive: true }));

  it('all but the one that is needed is swept away, and nothing else', async () => {
    for (const name of ['saved-00000001', 'saved-00000002']) {
      await mkdir(join(dir, name));
      await writeFile(join(dir, name, 'memory'), 'x');
    }
    await writeFile(join(dir, 'vm.json'), '{}');
    expect(await sweepSaved(dir, 'saved-00000002')).toEqual([join(dir, 'saved-00000001')]);
    expect((await readdir(dir)).sort()).toEqual(['saved-00000002', 'vm.json']);
    expect(await sweepSaved(dir, undefined)).toHaveLength(1);
    expect(await sweepSaved(join(dir, 'none'), undefined)).toEqual([]);
  });

  it('there must be space for what a process holds, and no more than the guest has', async () => {
    const own = { pid: process.pid, memoryPath: undefined };
    await requireSpace(dir, { ...own, memoryBytes: 2 ** 50 });
    await requireSpace(dir, { ...own, memoryBytes: 0 });
  });
});

describe('asNoSpace', () => {
  it('says of a full disk what was not saved, and leaves other errors alone', () => {
    const full = new HostError('ERR_HOST_DISK_FULL', 'x', { hint: 'y' });
    expect(asNoSpace(full)).toMatchObject({
      code: 'ERR_HOST_DISK_FULL',
      message: 'the VM’s memory cannot be saved: the host’s disk is full',
      cause: full,
    });
    const other = new Error('z');
    expect(asNoSpace(other)).toBe(other);
  });
});
