import { mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { gzipSync } from 'node:zlib';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { ImageError } from '../../../../src/errors.ts';
import { parseContainerConfig } from '../../../../src/image/import/container-config.ts';
import { openSource } from '../../../../src/image/import/open-source.ts';
import { dockerArchive, ociLayout, sha256, tar, tarOf } from './archives.ts';

let dir: string;
beforeEach(async () => {
  dir = await mkdtemp(path.join(tmpdir(), 'qa-import-'));
  await mkdir(path.join(dir, 'work'));
});
afterEach(() => rm(dir, { recursive: true, force: true }));

const open = (source: string) => openSource(source, path.join(dir, 'work'));

async function archive(name: string, data: Buffer): Promise<string> {
  await writeFile(path.join(dir, name), data);
  return path.join(dir, name);
}

async function unpacked(name: string, files: ReadonlyMap<string, Buffer>): Promise<string> {
  for (const [file, data] of files) {
    const target = path.join(dir, name, file);
    await mkdir(path.dirname(target), { recursive: true });
    await writeFile(target, data);
  }
  return path.join(dir, name);
}

/** Contents of all layers, one after the other. */
async function contents(source: string): Promise<string[]> {
  const { layers } = await open(source);
  const found: string[] = [];
  for (const layer of layers) {
    const parts: Buffer[] = [];
    for await (const part of layer.open({})) parts.push(part);
    found.push(sha256(Buffer.concat(parts)));
  }
  return found;
}

const layers = () =>
  Promise.all([tar({ name: 'a', content: '1' }), tar({ name: 'b', content: '2' })]);
const config = { Env: ['A=1'], User: 'app', WorkingDir: '/srv', Entrypoint: ['/x'], Cmd: ['y'] };

describe('openSource', () => {
  it('knows an OCI layout, as a directory and as an archive, also compressed', async () => {
    const parts = await layers();
    const files = ociLayout(parts, { config });
    const sources = [
      await unpacked('layout', files),
      await archive('a.tar', await tarOf(files)),
      await archive('a.tar.gz', gzipSync(await tarOf(files))),
    ];
    for (const source of sources) {
      expect(await open(source)).toMatchObject({
        format: 'oci',
        config: {
          environment: { A: '1' },
          user: 'app',
          workdir: '/srv',
          entrypoint: ['/x'],
          command: ['y'],
        },
      });
      expect(await contents(source)).toEqual(parts.map(sha256));
    }
  });

  it('knows what docker save wrote before version 25, with equal layers as links', async () => {
    const [first, second] = await layers();
    const files = dockerArchive([first, second, first], config);
    const [one, , three] = [...files.keys()];
    const source = await archive(
      'save.tar',
      await tar(
        ...[...files].map(([name, content]) =>
          name === three
            ? { name, type: 'symlink' as const, linkname: `../${one}` }
            : { name, content },
        ),
      ),
    );
    expect(await open(source)).toMatchObject({ format: 'docker', config: { user: 'app' } });
    expect(await contents(source)).toEqual([first, second, first].map(sha256));
    expect(await open(await unpacked('save', files))).toMatchObject({ format: 'docker' });
  });

  it('prefers the OCI part of what later versions of docker write', async () => {
    const parts = await layers();
    const both = new Map([...dockerArchive(parts), ...ociLayout(parts)]);
    expect(await open(await archive('both.tar', await tarOf(both)))).toMatchObject({
      format: 'oci',
    });
  });

  it('chooses amd64 of several platforms, through indexes in indexes', async () => {
    const wanted = ociLayout(await layers());
    const arm = ociLayout([await tar({ name: 'arm', content: '' })], {
      platform: { os: 'linux', architecture: 'arm64' },
    });
    const manifests = [arm, wanted].flatMap((files) => {
      const index = JSON.parse(files.get('index.json')!.toString()) as { manifests: object[] };
      return index.manifests;
    });
    const note = { ...manifests[0], platform: { os: 'unknown', architecture: 'unknown' } };
    const inner = Buffer.from(JSON.stringify({ manifests: [note, ...manifests] }));
    const files = new Map([...arm, ...wanted, [`blobs/sha256/${sha256(inner)}`, inner]]);
    const descriptor = {
      mediaType: 'application/vnd.oci.image.index.v1+json',
      digest: `sha256:${sha256(inner)}`,
      size: inner.length,
    };
    files.set('index.json', Buffer.from(JSON.stringify({ manifests: [descriptor] })));
    expect(await contents(await archive('multi.tar', await tarOf(files)))).toEqual(
      (await layers()).map(sha256),
    );
  });

  it('takes anything else for a root filesystem', async () => {
    const rootfs = await tar(
      { name: './etc/passwd', content: '' },
      { name: './oci-layout', content: '' },
    );
    for (const data of [rootfs, gzipSync(rootfs)]) {
      const source = await archive('rootfs', data);
      expect(await open(source)).toMatchObject({ format: 'tarball', config: undefined });
      expect(await contents(source)).toEqual([sha256(rootfs)]);
    }
    await mkdir(path.join(dir, 'root/usr'), { recursive: true });
    await writeFile(path.join(dir, 'root/oci-layout'), '');
    expect(await open(path.join(dir, 'root'))).toMatchObject({ format: 'directory' });
  });
});

describe('a broken source', () => {
  type Files = Map<string, Buffer>;
  const change = (files: Files, name: RegExp, data: (old: Buffer) => Buffer | undefined): Files => {
    for (const [file, old] of files) {
      if (!name.test(file)) continue;
      const next = data(old);
      if (next === undefined) files.delete(file);
      else files.set(file, next);
    }
    return files;
  };
  /** The largest blob is the layer of this one. */
  const oneLayer = async (): Promise<Files> =>
    ociLayout([
      await tar({
        name: 'a',
        content: Buffer.from(Array.from({ length: 4096 }, (_, n) => (n * n * 7) % 251)),
      }),
    ]);
  const layerBlob = (files: Files): RegExp =>
    new RegExp([...files].sort(([, a], [, b]) => b.length - a.length)[0]![0]);
  const json = (edit: (value: Record<string, unknown>) => void) => (old: Buffer) => {
    const value = JSON.parse(old.toString()) as Record<string, unknown>;
    edit(value);
    return Buffer.from(JSON.stringify(value));
  };

  it.each<[string, () => Promise<Files>, RegExp]>([
    [
      'an index without images',
      async () => change(await oneLayer(), /^index/, () => Buffer.from('{}')),
      /holds no image for linux\/amd64/,
    ],
    [
      'an index that is no JSON',
      async () => change(await oneLayer(), /^index/, () => Buffer.from('{')),
      /index.json is not JSON/,
    ],
    [
      'no index',
      async () => change(await oneLayer(), /^index/, () => undefined),
      /has no index.json/,
    ],
    [
      'only a foreign platform',
      async () => ociLayout(await layers(), { platform: { os: 'linux', architecture: 'arm64' } }),
      /only for linux\/arm64/,
    ],
    [
      'a missing blob',
      async () => {
        const files = await oneLayer();
        return change(files, layerBlob(files), () => undefined);
      },
      /lacks layer 1 of 1/,
    ],
    [
      'a blob of another size',
      async () => {
        const files = await oneLayer();
        return change(files, layerBlob(files), (old) => old.subarray(1));
      },
      /not what the manifest says: it has \d+ bytes instead of/,
    ],
    [
      'a flipped bit in a blob',
      async () => {
        const files = await oneLayer();
        return change(files, layerBlob(files), (old) => {
          old[50]! ^= 1;
          return old;
        });
      },
      /not what the manifest says: it has another SHA-256/,
    ],
    [
      'a flipped bit in a manifest',
      async () => {
        const files = await oneLayer();
        return change(files, /^blobs/, (old) =>
          old.includes('schemaVersion') ? Buffer.from(`${old.toString()} `) : old,
        );
      },
      /is not what its digest says/,
    ],
    [
      'digests that lead elsewhere',
      async () =>
        change(
          await oneLayer(),
          /^index/,
          json((index) => {
            (index['manifests'] as Record<string, unknown>[])[0]!['digest'] =
              'sha256:../../../etc/shadow';
          }),
        ),
      /for a digest/,
    ],
    [
      'descriptors without a size',
      async () =>
        change(
          await oneLayer(),
          /^index/,
          json((index) => {
            delete (index['manifests'] as Record<string, unknown>[])[0]!['size'];
          }),
        ),
      /has no size/,
    ],
    [
      'several images',
      async () => {
        const [a, b] = [await oneLayer(), ociLayout(await layers())];
        const manifests = [a, b].flatMap(
          (files) =>
            (JSON.parse(files.get('index.json')!.toString()) as { manifests: object[] }).manifests,
        );
        return new Map([...a, ...b, ['index.json', Buffer.from(JSON.stringify({ manifests }))]]);
      },
      /holds several images/,
    ],
    [
      'docker: a missing layer',
      async () => change(dockerArchive(await layers()), /layer.tar/, () => undefined),
      /lacks layer 1 of 2/,
    ],
    [
      'docker: a configuration that was changed',
      async () =>
        change(dockerArchive(await layers()), /^[0-9a-f]+\.json/, (old) =>
          Buffer.from(`${old.toString()} `),
        ),
      /is not what its digest says/,
    ],
    [
      'docker: as many layers as it likes',
      async () =>
        change(dockerArchive(await layers()), /^manifest/, (old) =>
          Buffer.from(old.toString().replace('"Layers":[', '"Layers":["x",')),
        ),
      /3 layers, but its configuration names 2/,
    ],
    [
      'docker: no image',
      async () => change(dockerArchive(await layers()), /^manifest/, () => Buffer.from('[]')),
      /lists no image/,
    ],
    [
      'docker: several images',
      async () =>
        change(dockerArchive(await layers()), /^manifest/, (old) =>
          Buffer.from(`[${old.toString().slice(1, -1)},{"RepoTags":["b:1"]}]`),
        ),
      /holds 2 images: it:latest, b:1/,
    ],
    [
      'docker: names that lead out',
      async () =>
        change(dockerArchive(await layers()), /^manifest/, (old) =>
          Buffer.from(old.toString().replace(/"Layers":\["/, '"Layers":["../../x/')),
        ),
      /names no part of the archive/,
    ],
  ])('with %s is refused', async (_, make, message) => {
    const files = await make();
    for (const source of [
      await unpacked('broken', files),
      await archive('broken.tar', await tarOf(files)),
    ]) {
      const fault = await open(source).catch((error: unknown) => error);
      expect(fault).toBeInstanceOf(ImageError);
      expect(fault).toMatchObject({ code: 'ERR_IMAGE_IMPORT', hint: expect.stringMatching(/./) });
      expect((fault as Error).message).toMatch(message);
    }
  });

  it('layers that are not what the configuration says are refused when they are read', async () => {
    const files = dockerArchive(await layers());
    const source = await archive(
      'x.tar',
      await tarOf(change(files, /layer.tar/, () => Buffer.alloc(1024))),
    );
    const { layers: opened } = await open(source);
    expect(opened.map(({ sha256: expected }) => expected)).toEqual((await layers()).map(sha256));
  });

  it.each<[string, () => Promise<string> | string, RegExp]>([
    ['that is not there', () => path.join(dir, 'nothing'), /cannot read .*ENOENT/],
    ['that is a device', () => '/dev/null', /neither a file nor a directory/],
    ['that is empty', () => archive('empty', Buffer.alloc(0)), /archive empty is empty/],
    ['that is text', () => archive('text', Buffer.from('hello')), /is not a tar archive/],
    ['that has no entries', () => archive('zero', Buffer.alloc(10_240)), /archive zero is empty/],
    [
      'with broken gzip',
      async () =>
        archive('a.gz', gzipSync(await tar({ name: 'a', content: 'x' })).fill(0xff, 20, 40)),
      /archive a.gz: broken gzip/,
    ],
    [
      'with gzip cut short',
      async () => {
        const gzip = gzipSync(await tar({ name: 'blobs/a', content: 'x'.repeat(9000) }));
        return archive('b.gz', gzip.subarray(0, gzip.length - 20));
      },
      /archive b.gz: broken gzip: unexpected end of file/,
    ],
    [
      'of links in a circle',
      async () => {
        await symlink('loop', path.join(dir, 'loop'));
        return path.join(dir, 'loop');
      },
      /cannot read .*ELOOP/,
    ],
  ])('%s is refused', async (_, make, message) => {
    const fault = await Promise.resolve(make())
      .then(open)
      .catch((error: unknown) => error);
    expect(fault).toBeInstanceOf(ImageError);
    expect(fault).toMatchObject({ code: 'ERR_IMAGE_IMPORT', hint: expect.stringMatching(/./) });
    expect((fault as Error).message).toMatch(message);
  });
});

describe('parseContainerConfig', () => {
  const parse = (o: object) =>
    parseContainerConfig({ os: 'linux', architecture: 'amd64', config: o }, 'it');

  it('takes what is there, and nothing where nothing is', () => {
    expect(parse({})).toEqual({
      environment: {},
      user: undefined,
      workdir: undefined,
      entrypoint: undefined,
      command: undefined,
      diffIds: [],
    });
    expect(parse({ Env: null, User: '', WorkingDir: '/', Entrypoint: [], Cmd: null })).toEqual(
      parse({}),
    );
    expect(parse({ Env: ['A=', 'B.c-d=x=y z'], User: '1000:1000' })).toMatchObject({
      environment: { A: '', 'B.c-d': 'x=y z' },
      user: '1000:1000',
    });
  });

  it.each<[string, object, RegExp]>([
    [
      'variables of several lines',
      { Env: ['KEY=a\nb'] },
      /environment variable KEY is not one line/,
    ],
    ['variables without a name', { Env: ['=x'] }, /environment variable  ?is not one line/],
    ['variables that are none', { Env: [1] }, /environment variable nothing/],
    ['users that are none', { User: 'a b' }, /"?a b"? is no name of a user/],
    ['directories that are not absolute', { WorkingDir: 'app' }, /working directory app is not/],
    ['directories that climb', { WorkingDir: '/app/../..' }, /is not an absolute path/],
  ])('refuses %s', (_, o, message) => {
    expect(() => parse(o)).toThrow(message);
  });

  it('refuses other platforms', () => {
    expect(() => parseContainerConfig({ os: 'windows', architecture: 'amd64' }, 'it')).toThrow(
      /it is for windows\/amd64/,
    );
    expect(() => parseContainerConfig([], 'it')).toThrow(/for nothing\/nothing/);
  });
});
