import { readdir, readFile, realpath, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { execa } from 'execa';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { detectBuildMode } from '../../../firmware/mmdebstrap.ts';
import { resolvePaths } from '../../../src/config/paths.ts';
import { qmpAgent, sandbox, type Sandbox } from '../../integration/cli/command.ts';
import { ociLayout, tar, tarOf, type Entry } from '../../unit/image/import/archives.ts';
import { expectNothingLeft } from '../cli/host.ts';

const DISK_GIB = 24;
/** Larger than an import makes it. */
const DISK = `${DISK_GIB}G`;
const host = resolvePaths();
let box: Sandbox;
let obstacle: string | undefined;

/** Why nothing can be imported here; undefined where it can. */
async function importObstacle(): Promise<string | undefined> {
  const kits = await readdir(join(host.cacheDir, 'kit')).catch(() => []);
  const routes = await readFile('/proc/net/route', 'utf8').catch(() => '');
  if (kits.length === 0 && !/^\S+\t0{8}\t/m.test(routes)) {
    return `images cannot be made here: no kernel in ${host.cacheDir}, and no network to fetch it`;
  }
  return detectBuildMode().then(
    () => undefined,
    (error: Error) => `images cannot be made here: ${error.message}`,
  );
}

/** The host's own programs with the libraries that they need: a distribution of a handful of files. */
async function programs(...paths: readonly string[]): Promise<Entry[]> {
  const files = new Map<string, string>();
  for (const path of paths) {
    files.set(path, path);
    const { stdout } = await execa('ldd', [path]);
    for (const [, library = ''] of stdout.matchAll(/(\/\S+) \(0x/g)) files.set(library, library);
  }
  return Promise.all(
    [...files].map(async ([name, file]) => ({
      name: name.slice(1),
      content: await readFile(await realpath(file)),
      mode: 0o755,
    })),
  );
}

const dir = (name: string, o: Partial<Entry> = {}): Entry => ({ name, type: 'directory', ...o });

async function image(): Promise<Buffer> {
  const system = await tar(
    ...(await programs('/bin/sh', '/bin/cat', '/bin/ls', '/bin/df', '/usr/bin/id', '/usr/bin/env')),
    dir('etc'),
    { name: 'etc/passwd', content: 'root:x:0:0::/root:/bin/sh\napp:x:70:71::/home/user:/bin/sh\n' },
    { name: 'etc/group', content: 'root:x:0:\napp:x:71:\nstaff:x:50:\n' },
    { name: 'etc/release', content: 'first\n' },
    { name: 'etc/gone', content: '' },
  );
  const application = await tar(
    dir('srv/app', { uid: 70, gid: 71 }),
    { name: 'srv/app/notes', content: 'of the application\n', uid: 70, gid: 71, mode: 0o600 },
    { name: 'etc/release', content: 'second\n' },
    { name: 'etc/.wh.gone', content: '' },
  );
  const config = {
    Env: ['PATH=/usr/bin:/bin', 'GREETING=hello there'],
    User: 'app',
    WorkingDir: '/srv/app',
  };
  return tarOf(ociLayout([system, application], { config }));
}

const cli = (...args: string[]) => qmpAgent(args, { env: box.env, timeoutMs: 120_000 });

async function ok(...args: string[]): Promise<string> {
  const result = await cli(...args);
  expect(result, String(result.stderr)).toMatchObject({ exitCode: 0 });
  return String(result.stdout);
}

/** Size of the root file system. */
async function sizeGib(): Promise<number> {
  const [, size] = (await ok('exec', 'box', 'df', '-k', '--output=size', '/')).split('\n');
  return Number(size) / 2 ** 20;
}

beforeAll(async () => {
  box = await sandbox();
  box = { ...box, env: { ...box.env, QMP_AGENT_STATE_CACHE_DIR: host.cacheDir } };
  obstacle = await importObstacle();
});
beforeEach((ctx) => {
  if (obstacle !== undefined) ctx.skip(obstacle);
});
afterAll(async () => {
  if (obstacle === undefined) await cli('remove', '--force', 'box');
  await expectNothingLeft(box);
  await box[Symbol.asyncDispose]();
});

describe('a VM of an imported container image without a Node of its own', () => {
  beforeAll(async () => {
    if (obstacle !== undefined) return;
    const archive = join(box.dir, 'image.tar');
    await writeFile(archive, await image());
    expect(await ok('image', 'import', archive, '--name', 'app')).toMatch(/^image app imported/);
    await ok('create', '--image', 'app', '--name', 'box', '--disk', DISK);
  });

  it('runs commands as the image says: user, directory, environment', async () => {
    const script = 'id; pwd; echo "$GREETING $PATH $HOME"; cat notes';
    expect(await ok('exec', 'box', 'sh', '-c', script)).toBe(
      [
        'uid=70(app) gid=71(app) groups=71(app)',
        '/srv/app',
        'hello there /usr/bin:/bin /home/user',
        'of the application',
      ].join('\n'),
    );
  });

  it('runs the agent from a snapshot that the Node of ours has made', async () => {
    expect(await ok('logs', 'box')).toContain('the agent starts from its snapshot');
  });

  it('runs them as whoever is named, with or without a group', async () => {
    const identity = async (user: string) => ok('exec', '--user', user, 'box', 'id');
    expect(await identity('root')).toBe('uid=0(root) gid=0(root) groups=0(root)');
    expect(await identity('app:staff')).toBe('uid=70(app) gid=50(staff) groups=50(staff)');
    expect(await identity('70:0')).toBe('uid=70(app) gid=0(root) groups=0(root)');
    expect(await identity('agent')).toMatch(/^uid=1000\(agent\) gid=1000\(agent\)/);
    const none = await cli('exec', '--user', 'app:nobody', 'box', 'id');
    expect(none.exitCode).toBe(125);
    expect(none.stderr).toContain('app:nobody');
  });

  it('has the whole disk that was asked for, with no program in it that could grow a file system', async () => {
    expect(await sizeGib()).toBeGreaterThan(DISK_GIB * 0.95);
    expect((await cli('exec', 'box', 'ls', '/sbin/resize2fs')).exitCode).not.toBe(0);
  });

  it('has the files that the last layer left', async () => {
    expect(await ok('exec', 'box', 'cat', '/etc/release')).toBe('second');
    expect((await cli('exec', 'box', 'ls', '/etc/gone')).exitCode).not.toBe(0);
  });

  it('keeps its image from being removed, and its ground where that is imported anew', async () => {
    const refused = await cli('image', 'remove', 'app', '--json');
    expect(refused.exitCode).toBe(1);
    expect(JSON.parse(String(refused.stdout))).toMatchObject([
      { image: 'app', ok: false, error: { code: 'ERR_IMAGE_IN_USE', hint: expect.any(String) } },
    ]);
    const other = join(box.dir, 'other.tar');
    await writeFile(other, await tar({ name: 'bin/other', content: '' }));
    await ok('image', 'import', other, '--name', 'app');
    const versions = async () => (await readdir(join(box.dir, 'data/images/app'))).length;
    expect(await versions()).toBe(3); // both, and the link to the newer one
    await ok('stop', 'box');
    await ok('start', 'box');
    expect(await ok('exec', 'box', 'cat', '/etc/release')).toBe('second');
    expect(await sizeGib()).toBeGreaterThan(DISK_GIB * 0.95);
    await ok('remove', '--force', 'box');
    await ok('image', 'remove', 'app');
    expect(await ok('image', 'list', '--quiet')).toBe('');
  });
});
