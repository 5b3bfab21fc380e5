import { chmod, chown, mkdir, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { StateDirError } from '../../../src/errors.ts';
import { checkLayout, ensureStateDirs, stateFault } from '../../../src/vm/state-dir.ts';

describe('ensureStateDirs', () => {
  let paths: { dataDir: string; runtimeDir: string; cacheDir: string };
  beforeEach(async () => {
    const dir = await mkdtemp(join(tmpdir(), 'qmp-agent-state-'));
    const at = (name: string) => join(dir, name, 'deep');
    paths = { dataDir: at('data'), runtimeDir: at('run'), cacheDir: at('cache') };
  });
  afterEach(() => rm(join(paths.dataDir, '../..'), { recursive: true }));

  it('makes what is missing, and marks it with the version', async () => {
    expect(await checkLayout(paths)).toBe(false);
    await ensureStateDirs(paths);
    expect((await readdir(paths.dataDir)).sort()).toEqual(['state.json', 'vms']);
    expect(await readdir(paths.runtimeDir)).toEqual([]);
    expect(await checkLayout(paths)).toBe(true);
    await ensureStateDirs(paths);
  });

  it('touches nothing in a directory of a later version', async () => {
    await mkdir(paths.dataDir, { recursive: true });
    await writeFile(join(paths.dataDir, 'state.json'), '{"schema":2}');
    for (const check of [checkLayout, ensureStateDirs]) {
      await expect(check(paths)).rejects.toMatchObject({
        name: 'StateDirError',
        code: 'ERR_STATE_DIR',
        hint: expect.stringContaining('Upgrade'),
      });
    }
    expect(await readdir(paths.dataDir)).toEqual(['state.json']);
  });

  it('lives with a marker that says nothing', async () => {
    await mkdir(paths.dataDir, { recursive: true });
    await writeFile(join(paths.dataDir, 'state.json'), '');
    await ensureStateDirs(paths);
  });

  it('says what stands in the way', async () => {
    await writeFile(join(paths.dataDir, '..'), 'a file');
    await expect(ensureStateDirs(paths)).rejects.toMatchObject({
      name: 'StateDirError',
      message: expect.stringMatching(/ENOTDIR|EEXIST/),
    });
  });

  it('refuses a directory in which others may put their own sockets', async () => {
    await mkdir(paths.runtimeDir, { recursive: true });
    await chmod(paths.runtimeDir, 0o777);
    await expect(ensureStateDirs(paths)).rejects.toMatchObject({
      name: 'StateDirError',
      path: paths.runtimeDir,
      hint: expect.stringContaining('chmod 700'),
    });
    await chmod(paths.runtimeDir, 0o1777); // as /tmp: what is ours there stays ours
    await ensureStateDirs(paths);
  });

  it.runIf(process.getuid?.() === 0)('refuses another user’s directory', async () => {
    await mkdir(paths.runtimeDir, { recursive: true });
    await chown(paths.runtimeDir, 12_345, 12_345);
    await expect(ensureStateDirs(paths)).rejects.toThrow(/uid 12345/);
    await expect(ensureStateDirs(paths)).rejects.toBeInstanceOf(StateDirError);
  });
});

describe('stateFault', () => {
  const fault = (code: string) => stateFault(Object.assign(new Error(code), { code }), '/data/x');

  it.each(['ENOSPC', 'EDQUOT'])('%s is a full disk', (code) =>
    expect(fault(code)).toMatchObject({ name: 'HostError', code: 'ERR_HOST_DISK_FULL' }),
  );

  it('EROFS is a read-only mount, and says so', () =>
    expect(fault('EROFS')).toMatchObject({
      code: 'ERR_STATE_DIR',
      path: '/data/x',
      hint: expect.stringContaining('read-only'),
    }));

  it.each(['EACCES', 'ENOENT', 'ENOTDIR', 'EIO'])('%s names directory and cause', (code) =>
    expect(fault(code)).toMatchObject({
      code: 'ERR_STATE_DIR',
      message: expect.stringContaining(code),
      hint: expect.stringContaining('/data'),
    }),
  );
});
