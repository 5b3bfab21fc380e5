import { describe, expect, it } from 'vitest';
import { HostError, ImageError } from '../../../../src/errors.ts';
import { checkTree, prepareTree, treeSize } from '../../../../src/image/import/check-tree.ts';
import { mergedTar } from '../../../../src/image/import/merge.ts';
import { IMPORT_LIMITS, scanLayers } from '../../../../src/image/import/scan.ts';
import { layerOf, sha256, tar, untar, type Entry } from './archives.ts';

const limits = { ...IMPORT_LIMITS, freeBytes: Number.MAX_SAFE_INTEGER };

async function scanned(...archives: readonly (readonly Entry[])[]) {
  const layers = await Promise.all(archives.map(async (entries) => layerOf(await tar(...entries))));
  return { layers, scan: await scanLayers(layers, { limits }) };
}

/** What the layers come to: `path: contents`, `path -> target`, `path = hard link`, `path/`. */
async function merged(...archives: readonly (readonly Entry[])[]): Promise<string[]> {
  const { layers, scan } = await scanned(...archives);
  const entries = await untar(mergedTar(scan.tree, layers, { withoutDevices: false }));
  return entries.map(({ name, type, linkname, content }) => {
    if (type === 'directory') return name;
    if (type === 'symlink') return `${name} -> ${linkname}`;
    if (type === 'link') return `${name} = ${linkname}`;
    return type === 'file' ? `${name}: ${String(content)}` : `${name} ${type}`;
  });
}

const dir = (name: string): Entry => ({ name, type: 'directory' });
const file = (name: string, content = name): Entry => ({ name, content });
const symlink = (name: string, linkname: string): Entry => ({ name, type: 'symlink', linkname });
const hardlink = (name: string, linkname: string): Entry => ({ name, type: 'link', linkname });

describe('layers', () => {
  it('replace files of earlier ones, and keep the rest', async () => {
    const result = await merged(
      [dir('etc'), file('etc/a', 'old'), file('etc/b', 'b')],
      [dir('etc'), file('etc/a', 'new'), file('etc/c', 'c')],
    );
    expect(result).toEqual(['etc/', 'etc/b: b', 'etc/a: new', 'etc/c: c']);
  });

  it('delete by whiteouts, a file or a whole directory', async () => {
    const lower = [dir('a'), file('a/x'), file('a/y'), dir('b'), file('b/z')];
    expect(await merged(lower, [file('a/.wh.x', ''), file('.wh.b', '')])).toEqual([
      'a/',
      'a/y: a/y',
    ]);
    expect(await merged(lower, [file('c/.wh.nothing', ''), file('.wh.gone', '')])).toHaveLength(5);
  });

  it('hide all of a directory by an opaque whiteout, wherever it stands among its siblings', async () => {
    const lower = [dir('a'), file('a/x'), dir('a/sub'), file('a/sub/deep'), file('keep')];
    const opaque = file('a/.wh..wh..opq', '');
    for (const upper of [
      [dir('a'), opaque, file('a/new')],
      [file('a/new'), opaque],
    ]) {
      expect(await merged(lower, upper)).toEqual(['a/', 'keep: keep', 'a/new: a/new']);
    }
  });

  it('delete only what earlier layers have', async () => {
    // As written for a directory that was removed and made again.
    const result = await merged(
      [dir('a'), file('a/old'), file('b')],
      [dir('a'), file('a/new'), file('.wh.a', ''), file('.wh.b', ''), file('b', 'again')],
    );
    expect(result).toEqual(['a/', 'a/new: a/new', 'b: again']);
  });

  it('keep a directory for what a layer has put deep into it', async () => {
    const result = await merged(
      [dir('a'), dir('a/b'), file('a/b/old')],
      [file('a/b/new'), file('a/.wh..wh..opq', '')],
    );
    expect(result).toEqual(['a/', 'a/b/', 'a/b/new: a/b/new']);
  });

  it('replace one kind of file by another', async () => {
    const result = await merged(
      [dir('d'), file('d/in'), file('f'), symlink('s', 'd')],
      [file('d', 'now a file'), dir('f'), file('f/in'), dir('s'), file('s/in')],
    );
    expect(result).toEqual(['f/', 's/', 'd: now a file', 'f/in: f/in', 's/in: s/in']);
  });

  it('leave out aufs notes, and take whiteout names literally in what is no layer', async () => {
    expect(await merged([file('.wh..wh.aufs'), dir('.wh..wh.plnk'), file('a')])).toEqual(['a: a']);
    const archive = await tar(file('.wh.a', 'x'), file('a'));
    const { tree } = await scanLayers([layerOf(archive, { whiteouts: false })], { limits });
    expect([...tree.items()].map(({ path }) => path)).toEqual(['.wh.a', 'a']);
  });

  it('go through links that earlier layers have made, as the image’s own processes would', async () => {
    const result = await merged(
      [
        dir('usr'),
        dir('usr/lib'),
        symlink('lib', 'usr/lib'),
        dir('run'),
        dir('var'),
        symlink('var/run', '/run'),
      ],
      [file('lib/x'), file('var/run/y'), file('lib/.wh.gone', '')],
    );
    expect(result).toContain('usr/lib/x: lib/x');
    expect(result).toContain('run/y: var/run/y');
    expect(result).toContain('lib -> usr/lib');
  });

  it('keep hard links together, whichever of their names is left', async () => {
    const lower = [
      file('a', 'shared'),
      hardlink('b', 'a'),
      hardlink('c', './b'),
      hardlink('d', '/a'),
    ];
    expect(await merged(lower)).toEqual(['a: shared', 'b = a', 'c = a', 'd = a']);
    expect(await merged(lower, [file('.wh.a', '')])).toEqual(['b: shared', 'c = b', 'd = b']);
    expect(await merged(lower, [file('a', 'other')])).toEqual([
      'b: shared',
      'a: other',
      'c = b',
      'd = b',
    ]);
    const special = await merged([symlink('s', 'x'), hardlink('t', 's')]);
    expect(special).toEqual(['s -> x', 't = s']);
  });

  it('make directories that no entry is there for', async () => {
    expect(await merged([file('a/b/c', 'x')])).toEqual(['a/', 'a/b/', 'a/b/c: x']);
  });

  it('bring owners, modes, devices and attributes along', async () => {
    const { layers, scan } = await scanned([
      { ...dir('d'), mode: 0o1770, uid: 5, gid: 6 },
      { ...file('f', ''), mode: 0o4711, uid: 7, gid: 8, pax: { 'SCHILY.xattr.user.k': 'v' } },
      { name: 'n', type: 'character-device', devmajor: 1, devminor: 5 },
    ]);
    const entries = await untar(mergedTar(scan.tree, layers, { withoutDevices: false }));
    expect(entries).toMatchObject([
      { name: 'd/', mode: 0o1770, uid: 5, gid: 6 },
      { name: 'f', mode: 0o4711, uid: 7, gid: 8, pax: { 'SCHILY.xattr.user.k': 'v' } },
      { name: 'n', type: 'character-device', devmajor: 1, devminor: 5 },
    ]);
    const without = await untar(mergedTar(scan.tree, layers, { withoutDevices: true }));
    expect(without.map(({ name }) => name)).toEqual(['d/', 'f']);
  });

  it('must be what their digest says', async () => {
    const archive = await tar(file('a'));
    const good = layerOf(archive, { sha256: sha256(archive) });
    const bad = layerOf(archive, { sha256: sha256('other') });
    expect((await scanLayers([good], { limits })).digests).toEqual([sha256(archive)]);
    await expect(scanLayers([bad], { limits })).rejects.toThrow(/not what the image says/);
  });

  it('must not change between the two readings', async () => {
    const archives = [await tar(file('a', '1')), await tar(file('a', '22'))];
    const layer = layerOf(archives[0]!, { open: () => layerOf(archives.shift()!).open({}) });
    const { tree } = await scanLayers([layer], { limits });
    await expect(untar(mergedTar(tree, [layer], { withoutDevices: false }))).rejects.toThrow(
      /changed while it was read, at "a"/,
    );
  });
});

describe('hostile layers', () => {
  const deep = Array.from({ length: 1100 }, () => 'd').join('/');
  it.each<[string, readonly Entry[], RegExp]>([
    ['../ in a name', [file('../etc/passwd')], /"..\/etc\/passwd" leads out of the root/],
    ['../ inside a name', [file('a/../../b')], /leads out of the root/],
    ['an absolute name', [file('/etc/passwd')], /"\/etc\/passwd" is an absolute path/],
    [
      'a link that climbs out',
      [symlink('x', '../..'), file('x/etc/passwd')],
      /leads out of the root by a symbolic link/,
    ],
    [
      'a link below a directory that climbs out',
      [symlink('a/x', '../../../tmp'), file('a/x/f')],
      /by a symbolic link/,
    ],
    [
      'links in a circle',
      [symlink('a', 'b'), symlink('b', 'a'), file('a/f')],
      /too many symbolic links/,
    ],
    ['a hard link out', [hardlink('x', '../../etc/shadow')], /leads out of the root/],
    [
      'a hard link to an absolute path',
      [hardlink('x', '/etc/shadow')],
      /hard link to "\/etc\/shadow", which is not in the image/,
    ],
    [
      'a hard link through a link out',
      [symlink('l', '../../etc'), hardlink('x', 'l/shadow')],
      /by a symbolic link/,
    ],
    ['a hard link to a directory', [dir('d'), hardlink('x', 'd')], /which is a directory/],
    ['a whiteout of the parent', [file('a/.wh...', '')], /deletes something outside/],
    ['a whiteout of itself', [file('.wh..', '')], /deletes something outside/],
    ['a whiteout of nothing', [file('.wh.', '')], /deletes something outside/],
    [
      'a whiteout through a link out',
      [symlink('l', '../..'), file('l/.wh.etc', '')],
      /by a symbolic link/,
    ],
    ['a file below a file', [file('a'), file('a/b')], /below something that is not a directory/],
    ['a link in place of the root', [symlink('./', 'x')], /takes the place of the root/],
    ['directories without end', [file(deep)], /deeper than 1024/],
    ['a name too long', [file('n'.repeat(256))], /has a name of 256 bytes/],
  ])('%s is refused', async (_, entries, message) => {
    const fault = await merged(entries).catch((error: unknown) => error);
    expect(fault).toBeInstanceOf(ImageError);
    expect(fault).toMatchObject({ code: 'ERR_IMAGE_IMPORT', hint: expect.stringMatching(/./) });
    expect((fault as Error).message).toMatch(message);
  });

  it('claims of absurd sizes are refused before a byte is read', async () => {
    const archive = await tar({ name: 'big', content: 'x', pax: { size: String(2 ** 50) } });
    await expect(scanLayers([layerOf(archive)], { limits })).rejects.toThrow(
      /"big" claims 1125899906842624 bytes/,
    );
    const many = [layerOf(await tar(file('a'), file('b'), file('c')))];
    await expect(scanLayers(many, { limits: { ...limits, entries: 2 } })).rejects.toThrow(
      /more than 2 entries/,
    );
  });

  it('more than the host has space for is refused', async () => {
    const layer = layerOf(await tar(file('a', 'x'.repeat(100))));
    const fault = scanLayers([layer], { limits: { ...limits, freeBytes: 99 } });
    await expect(fault).rejects.toMatchObject({ code: 'ERR_HOST_DISK_FULL' });
    await expect(fault).rejects.toBeInstanceOf(HostError);
  });
});

describe('checkTree', () => {
  const elf = (machine: number): Buffer => {
    const head = Buffer.alloc(64);
    head.write('\x7fELF\x02\x01', 'latin1');
    head.writeUInt16LE(machine, 18);
    return head;
  };
  const system = (machine: number): Entry[] => [
    dir('usr'),
    dir('usr/bin'),
    symlink('bin', 'usr/bin'),
    { name: 'usr/bin/dash', content: elf(machine), mode: 0o755 },
    symlink('usr/bin/sh', 'dash'),
  ];

  it('takes a root filesystem, and a container image that is nearly empty', async () => {
    for (const machine of [62, 3]) {
      const { scan } = await scanned(system(machine));
      expect(() => checkTree(scan.tree, 'tarball')).not.toThrow();
    }
    const { scan } = await scanned([{ ...file('app'), mode: 0o755 }]);
    expect(() => checkTree(scan.tree, 'oci')).not.toThrow();
  });

  it.each<[string, readonly Entry[], RegExp, RegExp]>([
    ['nothing', [], /holds no files/, /./],
    ['sources', [file('src/a'), file('README')], /is no root filesystem/, /--create -C ROOTFS/],
    [
      'a root filesystem one level down',
      [file('rootfs/bin/sh')],
      /is no root filesystem/,
      /below "rootfs"/,
    ],
    ['a foreign processor', system(183), /64-bit ARM/, /linux\/amd64/],
    ['an unknown processor', system(999), /machine 999/, /linux\/amd64/],
  ])('refuses %s', async (_, entries, message, hint) => {
    const { scan } = await scanned(entries);
    let fault: unknown;
    try {
      checkTree(scan.tree, 'tarball');
    } catch (error) {
      fault = error;
    }
    expect(fault).toMatchObject({
      message: expect.stringMatching(message),
      hint: expect.stringMatching(hint),
    });
  });

  it('makes real directories of what the init mounts over', async () => {
    const { scan } = await scanned([
      symlink('proc', '/etc'),
      file('sys/kernel/x'),
      file('tmp'),
      file('dev/console'),
      file('.qmp-agent/x'),
      symlink('srv', 'data'),
    ]);
    prepareTree(scan.tree, '/srv/app');
    expect([...scan.tree.items()].map(({ path, item }) => `${path} ${item.kind}`)).toEqual([
      'proc directory',
      'sys directory',
      'tmp directory',
      'dev directory',
      'dev/console file',
      'srv symlink',
      'run directory',
      'data directory',
      'data/app directory',
    ]);
  });

  it('counts each file once', async () => {
    const { scan } = await scanned([dir('d'), file('d/a', 'x'.repeat(5000)), hardlink('b', 'd/a')]);
    expect(treeSize(scan.tree)).toEqual({ bytes: 4096 + 8192, inodes: 2 });
  });
});
