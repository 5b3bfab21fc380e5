import { describe, expect, it } from 'vitest';
import { ImageError } from '../../../../src/errors.ts';
import {
  encodeHeader,
  padding,
  TAR_END,
  type TarHeader,
} from '../../../../src/image/import/tar-header.ts';
import { readTar } from '../../../../src/image/import/tar-reader.ts';
import { inPieces, tar, untar } from './archives.ts';

interface Read extends TarHeader {
  readonly content: string;
}

async function read(archive: Buffer): Promise<Read[]> {
  const found: Read[] = [];
  for await (const { header, data } of readTar(inPieces(archive), 'it')) {
    const parts: Buffer[] = [];
    for await (const part of data) parts.push(part);
    found.push({ ...header, content: Buffer.concat(parts).toString('latin1') });
  }
  return found;
}

const header = (o: Partial<TarHeader>): TarHeader => ({
  name: 'file',
  kind: 'file',
  mode: 0o644,
  uid: 0,
  gid: 0,
  sizeBytes: 0,
  mtimeS: 1,
  linkName: '',
  device: [0, 0],
  xattrs: new Map(),
  ...o,
});

/** Writes a field of the first header, and makes its checksum right again. */
function patched(archive: Buffer, offset: number, text: string): Buffer {
  const result = Buffer.from(archive);
  result.write(text, offset, 'latin1');
  result.fill(0x20, 148, 156);
  const sum = result.subarray(0, 512).reduce((total, byte) => total + byte, 0);
  result.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1');
  return result;
}

describe('readTar', () => {
  it('reads every kind of entry', async () => {
    const archive = await tar(
      { name: 'dir', type: 'directory', mode: 0o1777 },
      { name: 'dir/file', content: 'x'.repeat(513), uid: 1000, gid: 50, mode: 0o4755 },
      { name: 'hard', type: 'link', linkname: 'dir/file' },
      { name: 'soft', type: 'symlink', linkname: '../x' },
      { name: 'null', type: 'character-device', devmajor: 1, devminor: 3 },
      { name: 'sda', type: 'block-device', devmajor: 8, devminor: 0 },
      { name: 'pipe', type: 'fifo' },
    );
    expect(await read(archive)).toMatchObject([
      { name: 'dir', kind: 'directory', mode: 0o1777, mtimeS: 1_700_000_000 },
      {
        name: 'dir/file',
        kind: 'file',
        sizeBytes: 513,
        uid: 1000,
        gid: 50,
        mode: 0o4755,
        content: 'x'.repeat(513),
      },
      { name: 'hard', kind: 'link', linkName: 'dir/file', sizeBytes: 0 },
      { name: 'soft', kind: 'symlink', linkName: '../x' },
      { name: 'null', kind: 'character-device', device: [1, 3] },
      { name: 'sda', kind: 'block-device', device: [8, 0] },
      { name: 'pipe', kind: 'fifo' },
    ]);
  });

  it('takes long names from pax records and prefixes, and ids, times and sizes too', async () => {
    const long = `${'d'.repeat(90)}/${'f'.repeat(90)}`;
    const longer = `${long}/${'ü'.repeat(100)}`;
    const found = await read(
      await tar(
        { name: long, content: '1' },
        { name: longer, content: '2', pax: { uid: '3000000', mtime: '1234.5' } },
        { name: 'l', type: 'symlink', linkname: longer },
      ),
    );
    const bytes = Buffer.from(longer).toString('latin1');
    expect(found).toMatchObject([
      { name: long },
      { name: bytes, uid: 3_000_000, mtimeS: 1234, content: '2' },
      { name: 'l', linkName: bytes },
    ]);
  });

  it('skips contents that nobody reads, and ignores global records', async () => {
    const global = await tar({ name: 'x', type: 'pax-global-header' as 'file', content: '' });
    expect(global.length).toBeGreaterThan(0);
    const names: string[] = [];
    const archive = await tar(
      { name: 'a', content: 'a'.repeat(5000) },
      { name: 'b', content: 'b'.repeat(512) },
      { name: 'c' },
    );
    for await (const entry of readTar(inPieces(archive), 'it')) names.push(entry.header.name);
    expect(names).toEqual(['a', 'b', 'c']);
  });

  it('tells where contents are', async () => {
    const archive = await tar({ name: 'a', content: '12345' }, { name: 'b', content: 'found' });
    for await (const {
      header: { name, sizeBytes },
      offset,
    } of readTar(inPieces(archive), 'it')) {
      if (name !== 'b') continue;
      expect(archive.toString('latin1', offset, offset + sizeBytes)).toBe('found');
    }
    expect.assertions(1);
  });

  it('does without the end mark, and reads on behind it', async () => {
    const archive = await tar({ name: 'a', content: 'x' });
    expect(await read(archive.subarray(0, 1024))).toHaveLength(1);
    let seen = 0;
    const padded = Buffer.concat([archive, Buffer.alloc(20_000)]);
    for await (const _ of readTar(
      inPieces(padded, (bytes) => (seen += bytes)),
      'it',
    ));
    expect(seen).toBe(padded.length);
  });

  const plain = () => tar({ name: 'a', content: 'x'.repeat(600) });
  it.each<[string, () => Promise<Buffer> | Buffer, RegExp]>([
    [
      'an empty stream of no entry',
      async () => (await plain()).subarray(0, 100),
      /is not a tar archive: it has 100 bytes/,
    ],
    ['text', () => Buffer.from('#!/bin/sh\n'.repeat(200)), /is not a tar archive/],
    [
      'a header cut off',
      async () => Buffer.concat([(await plain()).subarray(0, 1536), Buffer.from('b'.repeat(99))]),
      /cut short.* 1635 bytes/,
    ],
    ['contents cut off', async () => (await plain()).subarray(0, 1000), /cut short.* 1000 bytes/],
    ['padding cut off', async () => (await plain()).subarray(0, 1200), /cut short/],
    [
      'a flipped bit',
      async () => {
        const a = Buffer.from(await plain());
        a[3]! ^= 1;
        return a;
      },
      /checksum is wrong/,
    ],
    [
      'a second header that is none',
      async () => Buffer.concat([(await plain()).subarray(0, 1536), Buffer.alloc(512, 'y')]),
      /is broken at byte 2048/,
    ],
    [
      'a number that is none',
      async () => patched(await plain(), 124, '9999'),
      /a number in it is none/,
    ],
    [
      'a negative size',
      async () => patched(await plain(), 124, '\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff'),
      /"a" has -1 for its size/,
    ],
    [
      'a size beyond all bounds',
      async () => patched(await plain(), 124, '\x80\x7f\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff'),
      /for its size/,
    ],
    [
      'GNU sparse files',
      async () => patched(await plain(), 156, 'S'),
      /"a" is stored as a sparse file/,
    ],
    [
      'pax sparse files',
      () => tar({ name: 'a', content: 'x', pax: { 'GNU.sparse.major': '1' } }),
      /sparse/,
    ],
    ['volume labels', async () => patched(await plain(), 156, 'V'), /is of type "V"/],
    [
      'pax records that are broken',
      async () => {
        const a = Buffer.from(await tar({ name: 'a', content: '', pax: { k: 'v' } }));
        a.write('x', 512);
        return a;
      },
      /extended header is broken/,
    ],
    [
      'an extended header of megabytes',
      async () => patched(patched(await plain(), 156, 'L'), 124, '77777777777\0'),
      /extended header has \d+ bytes/,
    ],
    [
      'an extended header and no entry',
      async () => (await tar({ name: 'ü', content: '' })).subarray(0, 1024),
      /cut short/,
    ],
    [
      'absurd owners',
      () => tar({ name: 'a', content: '', pax: { uid: '99999999999' } }),
      /for its uid/,
    ],
  ])('refuses %s', async (_, make, message) => {
    const fault = await read(await make()).catch((error: unknown) => error);
    expect(fault).toBeInstanceOf(ImageError);
    expect(fault).toMatchObject({ code: 'ERR_IMAGE_IMPORT', hint: expect.stringMatching(/./) });
    expect((fault as Error).message).toMatch(message);
  });

  it('gives up on an archive that goes on for ever after its end', async () => {
    async function* endless(): AsyncGenerator<Buffer> {
      yield await tar({ name: 'a' });
      for (;;) yield Buffer.alloc(1024 * 1024);
    }
    const names = async (): Promise<void> => {
      for await (const _ of readTar(endless(), 'it'));
    };
    await expect(names()).rejects.toThrow(/goes on for long after its end/);
  });
});

describe('encodeHeader', () => {
  async function* written(...entries: readonly (readonly [TarHeader, string])[]) {
    for (const [entry, content] of entries) {
      yield await Promise.resolve(encodeHeader({ ...entry, sizeBytes: content.length }));
      yield Buffer.from(content, 'latin1');
      yield padding(content.length);
    }
    yield TAR_END;
  }

  it('writes what another reader understands', async () => {
    const long = `${'d'.repeat(120)}/${'e'.repeat(120)}`;
    const found = await untar(
      written(
        [header({ name: 'dir/', kind: 'directory', mode: 0o2775 }), ''],
        [header({ name: long, uid: 3_000_000, gid: 7, mtimeS: 9 }), 'long'],
        [header({ name: 'l', kind: 'symlink', linkName: long }), ''],
        [header({ name: 'd', kind: 'block-device', device: [259, 1] }), ''],
      ),
    );
    expect(found).toMatchObject([
      { name: 'dir/', type: 'directory', mode: 0o2775 },
      { name: long, uid: 3_000_000, gid: 7, mtime: new Date(9000), content: 'long' },
      { name: 'l', type: 'symlink', linkname: long },
      { name: 'd', type: 'block-device', devmajor: 259, devminor: 1 },
    ]);
  });

  it('carries names and attributes byte by byte', async () => {
    const every = Buffer.from(Array.from({ length: 256 }, (_, byte) => byte)).toString('latin1');
    const name = every.replace(/[\0/]/g, '');
    const xattrs = new Map([['security.capability', every]]);
    const parts: Buffer[] = [];
    for await (const part of written([header({ name, xattrs }), every])) parts.push(part);
    expect(await read(Buffer.concat(parts))).toMatchObject([{ name, xattrs, content: every }]);
  });

  it('keeps the attributes that mean something in a VM, and no others', async () => {
    const names = [
      'security.capability',
      'user.note',
      'security.selinux',
      'trusted.overlay.opaque',
    ];
    const xattrs = new Map(names.map((name) => [name, '1']));
    const parts: Buffer[] = [];
    for await (const part of written([header({ xattrs }), ''])) parts.push(part);
    const [found] = await read(Buffer.concat(parts));
    expect([...found!.xattrs.keys()]).toEqual(names.slice(0, 2));
  });
});
