import { readFile, truncate, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { execa } from 'execa';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { ConfigError, ImageError, NotFoundError, StateDirError } from '../../../src/errors.ts';
import { events } from '../../../src/events.ts';
import type { Image } from '../../../src/image/index.ts';
import { decompressed } from '../../../src/image/import/decompress.ts';
import { readTar } from '../../../src/image/import/tar-reader.ts';
import { ociLayout, tar, tarOf, type Entry } from '../../unit/image/import/archives.ts';
import { qmpAgent } from '../cli/command.ts';
import { DiskContents } from './disk-contents.ts';
import { buildObstacle, expectNoTraces, imageSandbox, type ImageSandbox } from './image-sandbox.ts';

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

async function source(name: string, data: Buffer): Promise<string> {
  const file = path.join(box.dir, name);
  await writeFile(file, data);
  return file;
}

const dir = (name: string, o: Partial<Entry> = {}): Entry => ({ name, type: 'directory', ...o });
const CAPABILITY = '\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0'; // cap_net_raw=ep

/** A system in two layers, with all that layers can do. */
async function system(): Promise<Buffer[]> {
  const shell = await readFile('/bin/sh');
  return [
    await tar(
      dir('bin'),
      { name: 'bin/sh', content: shell, mode: 0o755 },
      { name: 'bin/hard', type: 'link', linkname: 'bin/sh' },
      {
        name: 'bin/ping',
        content: 'ping',
        mode: 0o755,
        pax: { 'SCHILY.xattr.security.capability': CAPABILITY },
      },
      dir('etc'),
      { name: 'etc/passwd', content: 'root:x:0:0::/root:/bin/sh\napp:x:70:71::/srv:/bin/sh\n' },
      { name: 'etc/old', content: 'old' },
      dir('cache'),
      { name: 'cache/big', content: 'x' },
      dir('usr'),
      dir('usr/lib'),
      { name: 'lib', type: 'symlink', linkname: 'usr/lib' },
      { name: 'proc', type: 'symlink', linkname: '/etc' },
      { name: 'usr/zero', type: 'character-device', devmajor: 1, devminor: 5, mode: 0o666 },
    ),
    await tar(
      { name: 'etc/.wh.old', content: '' },
      { name: 'cache/.wh..wh..opq', content: '' },
      { name: 'cache/new', content: 'new', uid: 70, gid: 71, mode: 0o2640 },
      { name: 'lib/added', content: 'through a link' },
      { name: '.wh.nothing', content: '' },
    ),
  ];
}

describe('an imported container image', () => {
  const config = {
    Env: ['PATH=/opt/x:/bin', 'GREETING=hi there'],
    User: 'app:71',
    WorkingDir: '/srv/app',
    Cmd: ['sh'],
  };
  let image: Image;
  let disk: DiskContents;

  beforeAll(async () => {
    if (obstacle !== undefined) return;
    const archive = await source('image.tar', await tarOf(ociLayout(await system(), { config })));
    const steps: string[] = [];
    image = await box.store.import(archive, {
      name: 'app',
      onProgress: ({ step, fraction }) => steps.push(fraction === undefined ? step : 'fraction'),
    });
    expect(steps).toEqual(expect.arrayContaining(['read', 'fraction', 'unpack', 'checksums']));
    disk = await DiskContents.open(image, box.dir);
  });
  afterAll(() => disk[Symbol.asyncDispose]());
  afterEach(() => expectNoTraces(box, ['app']));

  it('has a manifest with the settings of its configuration', async () => {
    expect(image.manifest).toMatchObject({
      name: 'app',
      origin: 'import',
      arch: 'amd64',
      node: 'bundled',
      user: 'app:71',
      workdir: '/srv/app',
      environment: { PATH: '/opt/x:/bin', GREETING: 'hi there' },
      command: ['sh'],
      packages: [],
    });
    expect(await box.store.verify('app')).toMatchObject({ id: image.id });
    expect(await disk.cat('/etc/qmp-agent/environment')).toBe(
      'PATH=/opt/x:/bin\nGREETING=hi there',
    );
    expect(await disk.cat('/etc/qmp-agent/user')).toBe('app:71');
    expect(await disk.cat('/etc/qmp-agent/workdir')).toBe('/srv/app');
  });

  it('has the files of all layers, less what later ones deleted', async () => {
    expect(await disk.list('/cache')).toEqual(['new']);
    expect(await disk.stat('/etc/old')).toBeUndefined();
    expect(await disk.cat('/usr/lib/added')).toBe('through a link');
    expect(await disk.stat('/lib')).toMatchObject({ type: 'symlink' });
    expect(await disk.stat('/cache/new')).toMatchObject({ mode: '2640', uid: 70, gid: 71 });
    expect(await disk.stat('/srv/app')).toMatchObject({ type: 'directory', mode: '755', uid: 0 });
    const [sh, hard] = [await disk.stat('/bin/sh'), await disk.stat('/bin/hard')];
    expect(sh?.inode).toBe(hard?.inode);
    expect(await disk.attribute('/bin/ping', 'security.capability')).toContain('01 00 00 02 00 20');
    if (process.getuid?.() === 0) {
      expect(await disk.stat('/usr/zero')).toMatchObject({
        type: 'character special',
        mode: '666',
        device: '1:5',
      });
    }
  });

  it('has what our init and agent need, and nothing of the import', async () => {
    const root = await disk.list('/');
    for (const name of ['proc', 'sys', 'dev', 'run', 'tmp']) expect(root).toContain(name);
    expect(await disk.stat('/proc')).toMatchObject({ type: 'directory' });
    expect(root).not.toContain('.qmp-agent');
    const [linker = ''] = (await disk.cat('/etc/qmp-agent/node')).split(' ');
    expect(await disk.stat(linker)).toMatchObject({ type: 'regular', mode: '755' });
    expect(await disk.list(`/lib/modules/${image.manifest.kernelVersion}`)).toContain(
      'modules.dep',
    );
    expect(await disk.cat('/etc/passwd')).toMatch(/^app:.*\nagent:x:1000:1000:/m);
  });

  it('is found, shown and removed by the command line', async () => {
    const cli = (...args: string[]) => qmpAgent(['image', ...args], { env: box.env });
    const list = JSON.parse((await cli('list', '--json')).stdout) as object[];
    expect(list).toMatchObject([{ name: 'app', id: image.id, origin: 'import' }]);
    const inspect = JSON.parse((await cli('inspect', 'app')).stdout) as object[];
    expect(inspect).toMatchObject([{ name: 'app', workdir: '/srv/app' }]);
  });

  it('makes way for another of its name only where no VM stands on it', async () => {
    const inUse = box.openStore({ inUseBy: ['box'] });
    await expect(inUse.remove('app')).rejects.toMatchObject({
      code: 'ERR_IMAGE_IN_USE',
      message: 'image app is in use by box',
      hint: expect.stringContaining('remove box'),
    });
    const next = await inUse.import(
      await source('b.tar', await tar({ name: 'bin/b', content: '' })),
      { name: 'app' },
    );
    expect(next.id).not.toBe(image.id);
    expect(await readFile(path.join(image.dir, 'manifest.json'), 'utf8')).toContain(image.id);
    image = next;
  });

  describe('that is broken', () => {
    const manifestFile = (): string => path.join(image.dir, 'manifest.json');
    const rewrite = async (edit: (text: string) => string): Promise<() => Promise<void>> => {
      const text = await readFile(manifestFile(), 'utf8');
      await execa('chmod', ['u+w', manifestFile()]);
      await writeFile(manifestFile(), edit(text));
      return () => writeFile(manifestFile(), text);
    };

    it.each<[string, (text: string) => string, RegExp]>([
      ['no JSON', (text) => text.slice(5), /manifest cannot be read/],
      ['not what it should be', () => '{"schema":1}', /manifest is not one/],
      [
        'for another file',
        (text) => text.replaceAll('rootfs.qcow2', 'other.qcow2'),
        /other.qcow2 is missing/,
      ],
      [
        'of another size',
        (text) => text.replace(/("rootfs.qcow2": \{\s*"sizeBytes": )/, '$11'),
        /rootfs.qcow2 has \d+ bytes instead of/,
      ],
    ])('is named: a manifest that is %s', async (_, edit, message) => {
      const restore = await rewrite(edit);
      try {
        await expect(box.store.get('app')).rejects.toMatchObject({
          code: 'ERR_IMAGE_CORRUPT',
          message: expect.stringMatching(message),
          hint: expect.stringMatching(/./),
        });
      } finally {
        await restore();
      }
    });

    it('is named: from the future', async () => {
      const restore = await rewrite((text) => text.replace('"schema": 1', '"schema": 99'));
      try {
        await expect(box.store.get('app')).rejects.toBeInstanceOf(StateDirError);
      } finally {
        await restore();
      }
    });

    it('is named: a flipped bit, which only reading all of it finds', async () => {
      const data = await readFile(image.rootfsPath);
      data[data.length >> 1]! ^= 1;
      await execa('chmod', ['u+w', image.rootfsPath]);
      await writeFile(image.rootfsPath, data);
      await box.store.get('app');
      await expect(box.store.verify('app')).rejects.toMatchObject({
        code: 'ERR_IMAGE_CORRUPT',
        message: expect.stringContaining('SHA-256 differs'),
      });
      await truncate(image.rootfsPath, 1000);
      await expect(box.store.get('app')).rejects.toBeInstanceOf(ImageError);
      expect(await box.store.list()).toEqual([]);
    });
  });
});

describe('an import that fails', () => {
  afterEach(() => expectNoTraces(box, ['app']));

  it.each<[string, () => Promise<string>, RegExp]>([
    [
      'a hostile archive',
      async () => source('evil.tar', await tar({ name: 'bin/../../x', content: '' })),
      /leads out of the root/,
    ],
    [
      'a layer that is missing',
      async () => {
        const files = ociLayout(await system());
        const [layer] = [...files].sort(([, a], [, b]) => b.length - a.length)[0]!;
        files.delete(layer);
        return source('missing.tar', await tarOf(files));
      },
      /lacks layer/,
    ],
    ['a directory of sources', () => Promise.resolve(import.meta.dirname), /is no root filesystem/],
  ])('names its cause and leaves nothing: %s', async (_, make, message) => {
    const failures: string[] = [];
    const off = events.subscribe((event) => {
      if (event.type === 'image.build.failed') failures.push(event.step);
    });
    const fault = await box.store
      .import(await make(), { name: 'bad' })
      .catch((error: unknown) => error);
    off();
    expect(fault).toMatchObject({
      code: 'ERR_IMAGE_IMPORT',
      message: expect.stringMatching(message),
    });
    expect(failures).toEqual(['read']);
    await expect(box.store.get('bad')).rejects.toBeInstanceOf(NotFoundError);
  });

  it('says so on the command line, in words and in JSON', async () => {
    const file = await source('evil.tar', await tar({ name: '/etc/x', content: '' }));
    const args = ['image', 'import', file, '--name', 'bad'];
    const words = await qmpAgent(args, { env: box.env });
    expect(words.exitCode).toBe(1);
    expect(words.stderr).toMatch(
      /qmp-agent: "\/etc\/x" is an absolute path\nhint: Make the archive/,
    );
    const json = await qmpAgent([...args, '--json'], { env: box.env });
    expect(JSON.parse(json.stderr)).toMatchObject({ error: { code: 'ERR_IMAGE_IMPORT' } });
  });

  it('refuses names that are none', async () => {
    await expect(box.store.import('/', { name: '../x' })).rejects.toBeInstanceOf(ConfigError);
  });

  it('ends at once where it is told to, and with the reason it was given', async () => {
    const file = await source('ok.tar', await tar({ name: 'bin/x', content: 'x' }));
    const controller = new AbortController();
    const reason = new Error('enough');
    const work = box.store.import(file, {
      name: 'bad',
      signal: controller.signal,
      onProgress: ({ step }) => step === 'unpack' && controller.abort(reason),
    });
    await expect(work).rejects.toBe(reason);
  });
});

describe('sources as other programs write them', () => {
  it('GNU tar in all its formats, and directories', async () => {
    const root = path.join(box.dir, 'tree');
    const long = 'n'.repeat(200);
    await execa('sh', [
      '-ec',
      `mkdir -p ${root}/bin ${root}/${long}; cd ${root}; echo x >bin/x; ln bin/x bin/y; ln -s ${long} link; mkfifo pipe; echo z >${long}/${long}; touch -d @1000000000 bin/x`,
    ]);
    for (const format of ['gnu', 'posix', 'oldgnu']) {
      const { stdout } = await execa(
        'tar',
        ['--create', `--format=${format}`, '--sort=name', '-C', root, '.'],
        { encoding: 'buffer' },
      );
      const found: string[] = [];
      for await (const { header } of readTar(chunksOf(Buffer.from(stdout)), format)) {
        found.push(`${header.kind} ${header.name} ${header.linkName}`.trim());
      }
      expect(found).toEqual([
        'directory ./',
        'directory ./bin/',
        'file ./bin/x',
        'link ./bin/y ./bin/x',
        `symlink ./link ${long}`,
        `directory ./${long}/`,
        `file ./${long}/${long}`,
        'fifo ./pipe',
      ]);
    }
    const image = await box.store.import(root, { name: 'tree' });
    expect(image.manifest).toMatchObject({ user: 'agent', environment: {} });
    await using disk = await DiskContents.open(image, box.dir);
    expect(await disk.cat(`/${long}/${long}`)).toBe('z');
    expect(await disk.stat('/pipe')).toMatchObject({ type: 'FIFO' });
    await box.store.remove('tree');
  });

  it.each(['gzip', 'xz', 'zstd', 'bzip2'])('%s, whole and damaged', async (program) => {
    const archive = await tar({ name: 'a', content: Buffer.alloc(3_000_000, 'abc') });
    const packed = await execa(program, ['-c'], { input: archive, encoding: 'buffer' });
    const whole = Buffer.from(packed.stdout);
    const read = async (data: Buffer): Promise<Buffer> => {
      const parts: Buffer[] = [];
      for await (const part of decompressed(chunksOf(data), 'it')) parts.push(part);
      return Buffer.concat(parts);
    };
    expect((await read(whole)).equals(archive)).toBe(true);
    const damaged = Buffer.from(whole).fill(0x55, whole.length >> 1, (whole.length >> 1) + 30);
    for (const data of [damaged, whole.subarray(0, whole.length - 10)]) {
      await expect(read(data)).rejects.toMatchObject({
        code: 'ERR_IMAGE_IMPORT',
        message: expect.stringMatching(/^it: broken /),
      });
    }
  });
});

async function* chunksOf(data: Buffer): AsyncGenerator<Buffer> {
  for (let from = 0; from < data.length; from += 65_536) {
    yield await Promise.resolve(data.subarray(from, from + 65_536));
  }
}
