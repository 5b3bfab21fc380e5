import { randomBytes } from 'node:crypto';
import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { execa } from 'execa';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest';
import { ImageError } from '../../../src/errors.ts';
import type { ImageBuildResult, RecipeInput } from '../../../src/image/index.ts';
import { NODE_ARGS, qmpAgent, startQmpAgent } from '../cli/command.ts';
import { DiskContents } from './disk-contents.ts';
import { ForwardProxy } from './forward-proxy.ts';
import { buildObstacle, expectNoTraces, imageSandbox, type ImageSandbox } from './image-sandbox.ts';
import { SCALE } from '../../scale.ts';

/** Domain of the public archive. */
const DEBIAN = 'debian.org';

let box: ImageSandbox;
let obstacle: string | undefined;
beforeAll(async () => {
  box = await imageSandbox();
  obstacle = await buildObstacle();
});
beforeEach((ctx) => {
  if (obstacle !== undefined) ctx.skip(obstacle);
});
afterAll(() => box[Symbol.asyncDispose]());

const recipe: RecipeInput = {
  name: 'tiny',
  files: [
    { to: '/etc/motd', content: 'welcome\n' },
    { to: '/usr/local/bin/hello', from: 'hello.sh', mode: '0750', owner: 'agent:agent' },
  ],
  provision: [
    'echo "provisioning as $(id -un) with $GREETING"',
    'test -n "$http_proxy" && test -s "$SSL_CERT_FILE"',
    'echo "proxy $http_proxy" && cat /etc/apt/sources.list.d/*',
    'echo "$GREETING" >/etc/provisioned',
    'sleep 1000 &', // a step may not leave anything running
  ].join('\n'),
  environment: { GREETING: 'it’s "quoted" $HOME' },
  sizeMib: 1024,
};
const failing: RecipeInput = {
  name: 'failing',
  provision: 'echo one step; echo too far >&2; exit 3',
};
const PASSWORD = `s3cret-${randomBytes(8).toString('hex')}`;
const ADDRESS = '127.0.0.1';

/** apt's view of a mirror that is the public one under another name. */
async function useMirror(): Promise<void> {
  const dir = path.join(box.dir, 'apt');
  await mkdir(path.join(dir, 'lists/partial'), { recursive: true });
  await writeFile(
    path.join(dir, 'sources.list'),
    'deb http://deb.' + DEBIAN + ':80/debian trixie-updates main\n',
  );
  const config = [
    `Dir::Etc::sourcelist "${dir}/sources.list";`,
    `Dir::Etc::sourceparts "${dir}/none";`,
    `Dir::State::lists "${dir}/lists";`,
    'APT::Sandbox::User "root";',
  ];
  await writeFile(path.join(dir, 'apt.conf'), config.join('\n'));
  vi.stubEnv('APT_CONFIG', path.join(dir, 'apt.conf'));
  await execa('apt-get', ['update'], { timeout: 60_000 * SCALE });
}

describe('a recipe', () => {
  let proxy: ForwardProxy;
  let results: ImageBuildResult[];
  let fault: unknown;
  let disk: DiskContents;
  let log: string;
  const steps: string[] = [];

  // Two builds at once of one image, and at the same time one that fails.
  beforeAll(async () => {
    if (obstacle !== undefined) return;
    await writeFile(path.join(box.dir, 'hello.sh'), '#!/bin/sh\necho hello\n');
    await useMirror();
    proxy = await ForwardProxy.start(`builder:${PASSWORD}`);
    vi.stubEnv('http_proxy', `http://builder:${PASSWORD}@${ADDRESS}:${proxy.port}`);
    vi.stubEnv('no_proxy', '');
    const other = box.openStore({ inUseBy: [] });
    const onProgress = ({ step }: { step: string }): void => void steps.push(step);
    [results, fault] = await Promise.all([
      Promise.all([
        box.store.build(recipe, { baseDir: box.dir, onProgress }),
        other.build(recipe, { baseDir: box.dir, onProgress }),
      ]),
      other.build(failing).catch((error: unknown) => error),
    ]);
    disk = await DiskContents.open(results[0]!.image, box.dir);
    const logs = path.join(box.dir, 'data/logs');
    const texts = (await readdir(logs)).map((name) => readFile(path.join(logs, name), 'utf8'));
    log = (await Promise.all(texts)).join('\n');
  }, 600_000 * SCALE);
  afterAll(async () => {
    vi.unstubAllEnvs();
    await disk[Symbol.asyncDispose]();
    await proxy[Symbol.asyncDispose]();
  });

  it('is built once, where two want it at once', () => {
    expect(results.map(({ cached }) => cached).sort()).toEqual([false, true]);
    expect(new Set(results.map(({ image }) => image.id)).size).toBe(1);
    expect(steps.slice(-3)).toEqual(['file system', 'disk image', 'checksums']);
  });

  it('leaves nothing but itself', () => expectNoTraces(box, ['tiny']));

  it('is not built again where nothing changed, and that is known in a second', async () => {
    const again = await box.store.build(recipe, { baseDir: box.dir });
    expect(again.cached).toBe(true);
    expect(again.durationMs).toBeLessThan(1000 * SCALE);
  });

  it('has its manifest', async () => {
    const { manifest } = results[0]!.image;
    expect(manifest).toMatchObject({
      origin: 'build',
      suite: 'trixie',
      arch: 'amd64',
      environment: recipe.environment,
      user: 'agent',
      node: 'bundled',
      virtualBytes: 1024 ** 3,
    });
    expect(manifest.packages).toContainEqual(expect.stringMatching(/^bash 5/));
    expect(manifest.recipeHash).toMatch(/^[0-9a-f]{64}$/);
    await box.store.verify('tiny');
  });

  it('has its files, its user, and what its script did', async () => {
    expect(await disk.cat('/etc/motd')).toBe('welcome');
    expect(await disk.stat('/usr/local/bin/hello')).toMatchObject({
      mode: '750',
      uid: 1000,
      gid: 1000,
    });
    expect(await disk.cat('/etc/provisioned')).toBe(recipe.environment!['GREETING']);
    expect(await disk.cat('/etc/qmp-agent/environment')).toBe(
      `GREETING=${recipe.environment!['GREETING']}`,
    );
    expect(await disk.cat('/etc/passwd')).toMatch(
      /^agent:x:1000:1000:.*:\/home\/agent:\/bin\/bash$/m,
    );
    expect(log).toContain('provisioning as root with it’s "quoted" $HOME');
  });

  it('was built through the host’s proxy and mirror, of which nothing stays', async () => {
    expect(proxy.served).toBeGreaterThan(50);
    const manifest = JSON.stringify(results[0]!.image.manifest);
    for (const secret of [PASSWORD, `${ADDRESS}:${proxy.port}`, 'deb.' + DEBIAN + ':80']) {
      expect(log).not.toContain(secret);
      expect(manifest).not.toContain(secret);
      expect(await disk.holds(secret)).toBe(false);
    }
    expect(log).toContain('proxy ***'); // it was printed
    expect(await disk.list('/etc/apt/sources.list.d')).toEqual([]);
    expect(await disk.cat('/etc/apt/sources.list')).toContain(
      'deb http://deb.' + DEBIAN + '/debian trixie main',
    );
    expect(await disk.list('/etc/apt/apt.conf.d')).not.toContain('99mmdebstrap');
    expect(await disk.cat('/etc/resolv.conf')).toBe('');
    expect(await disk.list('/')).not.toContain('.qmp-agent');
  });

  it('that fails names the step and quotes its log', async () => {
    expect(fault).toBeInstanceOf(ImageError);
    const { code, step, message, logPath, hint } = fault as ImageError;
    expect({ code, step }).toEqual({ code: 'ERR_IMAGE_BUILD', step: 'provision' });
    expect(message).toContain('step "provision" failed');
    expect(message).toContain('too far');
    expect(hint).toContain(logPath);
    expect(await readFile(logPath!, 'utf8')).toContain('one step');
  });

  it('is shown and removed by the command line', async () => {
    const cli = (...args: string[]) => qmpAgent(['image', ...args], { env: box.env });
    expect((await cli('list')).stdout).toMatch(/^NAME +ID +ORIGIN.*\ntiny +[0-9a-f]{12} +trixie/);
    expect(JSON.parse((await cli('inspect', 'tiny')).stdout)).toMatchObject([{ name: 'tiny' }]);
    expect(JSON.parse((await cli('list', '--json')).stdout)).toMatchObject([{ name: 'tiny' }]);
    const none = await cli('remove', 'tiny', 'none', '--json');
    expect(none.exitCode).toBe(1);
    expect(JSON.parse(none.stdout)).toMatchObject([
      { image: 'tiny', ok: true },
      { image: 'none', ok: false, error: { code: 'ERR_NOT_FOUND' } },
    ]);
    expect((await cli('list', '--quiet')).stdout).toBe('');
    await box.store
      .build(recipe, { baseDir: box.dir, signal: AbortSignal.abort() })
      .catch(() => undefined);
  });
});

describe('a build that does not end', () => {
  afterEach(() => expectNoTraces(box, []));

  it('names the step where the archive has no such suite', async () => {
    const fault = box.store.build({ name: 'x', suite: 'no-such-suite' });
    await expect(fault).rejects.toMatchObject({
      code: 'ERR_IMAGE_BUILD',
      step: 'package lists',
      message: expect.stringContaining('no-such-suite'),
    });
  });

  it.each([
    ['SIGINT', 130],
    ['SIGKILL', undefined],
  ] as const)('leaves nothing after %s in the middle', async (signal, exitCode) => {
    const file = path.join(box.dir, 'stopped.yaml');
    await writeFile(file, 'name: stopped\npackages: [python3]\n');
    const command = startQmpAgent(['image', 'build', '-f', file, '--json'], {
      env: box.env,
      timeoutMs: 100_000 * SCALE,
    });
    await new Promise<void>((resolve, reject) => {
      command.stdout!.on('data', (text: Buffer) => {
        if (text.includes('"step":"extract"')) resolve();
      });
      void command.then(({ stderr }) => reject(new Error(String(stderr))));
    });
    command.kill(signal);
    expect((await command).exitCode).toBe(exitCode);
    if (signal === 'SIGKILL') {
      // Processes end with it; its directory goes with the next build or import of that name.
      await box.store
        .import(path.join(box.dir, 'none'), { name: 'stopped' })
        .catch(() => undefined);
    }
  });

  it('says what is missing where neither root nor user namespaces are there', async (ctx) => {
    if (process.getuid?.() !== 0) ctx.skip('only root can become a user without a range of ids');
    const identity = ['--reuid=65534', '--regid=65534', '--clear-groups', '--inh-caps=-all'];
    const { stderr, exitCode } = await execa(
      'setpriv',
      [...identity, process.execPath, ...NODE_ARGS, 'image', 'build'],
      {
        reject: false,
        extendEnv: false,
        env: { NO_COLOR: '1', TSX_DISABLE_CACHE: '1', HOME: '/nonexistent', USER: 'nobody' },
      },
    );
    expect(exitCode).toBe(1);
    expect(stderr).toMatch(
      /images cannot be built without root here: .+\nhint: .+, or build as root\./,
    );
  });
});
