/** Comparing file systems: all kinds of changes, all ways in which a disk may hold them, and hostile ones. */
import { copyFile, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { execa } from 'execa';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  compareVolumes,
  DiskFiles,
  DiskReader,
  Ext4Volume,
  type DiskLayer,
  type FileChange,
} from '../../../src/storage/index.ts';
import { asQcow2, bytesOf, debugfs, makeExt4, makeTree, memoryDisk } from './ext4-images.ts';

/** Changed file systems that are tried; each takes some ms. */
const HOSTILE = 600;
const KIBIBYTE = 1024;

let dir: string;
let before: string;
let after: string;

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'qmp-agent-ext4-'));
  await mkdir(join(dir, 'tree'));
  await makeTree(join(dir, 'tree'));
  before = join(dir, 'before');
  after = join(dir, 'after');
  await makeExt4(before, join(dir, 'tree'), '-b', '4096', '-J', 'size=4');
  await copyFile(before, after);
  const added = join(dir, 'added');
  await writeFile(added, 'added');
  const big = join(dir, 'big');
  await writeFile(big, Buffer.concat([Buffer.alloc(299_999, 'big'), Buffer.from('!')]));
  const text = join(dir, 'text');
  await writeFile(text, 'behind');
  await debugfs(
    after,
    `write ${added} added`,
    ...['rm text', `write ${text} text`, 'rm big', `write ${big} big`],
    ...['rm gone/below/file', 'rmdir gone/below', 'rmdir gone', `write ${added} gone`],
    ...['ln moved moved-away', 'unlink moved', 'ln same harder'],
    ...['set_inode_field sub/mode mode 0100600', 'set_inode_field sub/deep/file uid 7'],
    ...['rm link', 'symlink link text', 'mknod device c 1 3', 'set_inode_field pipe mtime 86400'],
    `ea_set sub/mode user.note hello`,
    'rm many/a-long-name-of-a-file-7',
  );
});

afterAll(async () => {
  await rm(dir, { recursive: true, force: true });
});

const letter = { added: 'A', changed: 'C', deleted: 'D' };
const linesOf = (changes: readonly FileChange[]) =>
  changes.map(({ kind, path, changes: what }) =>
    [letter[kind], path, ...(what ?? []).filter((one) => one !== 'mtime')].join(' '),
  );

const EXPECTED = [
  'A /added',
  'C /big content',
  'A /device',
  'C /gone type mode',
  'D /gone/below',
  'D /gone/below/file',
  'A /harder',
  'C /link target',
  'D /many/a-long-name-of-a-file-7',
  'D /moved',
  'A /moved-away',
  'C /pipe',
  'C /sub/deep/file owner',
  'C /sub/mode mode attributes',
  'C /text content',
];

async function compared(one: readonly DiskLayer[], other: readonly DiskLayer[]): Promise<string[]> {
  using files = new DiskFiles();
  const [first, second] = [await DiskReader.open(files, one), await DiskReader.open(files, other)];
  return linesOf(await compareVolumes(new Ext4Volume(first), new Ext4Volume(second)));
}

describe('two file systems', () => {
  it('differ in what was changed, and in nothing else', async () => {
    const [one, other] = [[{ path: await asQcow2(before) }], [{ path: await asQcow2(after) }]];
    const found = await compared(one, other);
    expect(found.filter((line) => !/^[AC] .*(line|many$)|^C \/(sub)?$/.test(line))).toEqual(
      EXPECTED,
    );
    expect(await compared(one, one)).toEqual([]);
    const flipped = await compared(other, one);
    const mirror: Record<string, string> = { A: 'D', D: 'A', C: 'C' };
    expect(flipped.map((line) => line.split(' ', 2).join(' '))).toEqual(
      found.map((line) => `${mirror[line[0] ?? '']} ${line.split(' ')[1]}`),
    );
  });

  it('are read from overlays, snapshots and compressed clusters alike', async () => {
    const base = await asQcow2(before, '-c');
    const overlay = join(dir, 'overlay.qcow2');
    const create = ['create', '-q', '-f', 'qcow2', '-b', base, '-F', 'qcow2', overlay];
    await execa('qemu-img', create);
    await execa('qemu-img', ['snapshot', '-c', 'then', overlay]);
    const now = [{ path: overlay }, { path: base }];
    const then = [{ path: overlay, snapshot: 'then' }, { path: base }];
    expect(await compared([{ path: base }], now)).toEqual([]);
    const rebased = join(dir, 'changed.qcow2');
    await execa('qemu-img', ['convert', '-O', 'qcow2', '-B', base, '-F', 'qcow2', after, rebased]);
    const changed = await compared(then, [{ path: rebased }, { path: base }]);
    expect(changed).toEqual(await compared([{ path: base }], [{ path: await asQcow2(after) }]));
    await execa('qemu-io', ['-c', 'write -P 0 0 64k', overlay]); // its superblock, and no more
    expect(await compared([{ path: base }], then)).toEqual([]);
    await expect(compared([{ path: base }], now)).rejects.toMatchObject({
      code: 'ERR_DIFF_FILE_SYSTEM',
    });
  });

  it('have the files that their journals hold', async () => {
    const journaled = join(dir, 'journaled');
    await copyFile(before, journaled);
    const bytes = await bytesOf(before);
    const block = Math.floor(bytes.indexOf('a-long-name-of-a-file-') / 4096); // of a directory
    const file = join(dir, 'block');
    await writeFile(file, bytes.subarray(block * 4096, (block + 1) * 4096));
    await debugfs(journaled, 'jo', `jw -b ${block} ${file}`, 'jc');
    const one = new Ext4Volume(memoryDisk(bytes, 1));
    const broken = await bytesOf(journaled);
    broken.fill(1, block * 4096, (block + 1) * 4096); // what is at its place is of no account
    const { stdout } = await execa('dumpe2fs', ['-h', journaled]);
    expect(stdout).toContain('needs_recovery');
    expect(linesOf(await compareVolumes(one, new Ext4Volume(memoryDisk(broken, 2))))).toEqual([]);
  });
});

describe('a hostile file system', () => {
  it.each([
    ['of extents', ['-b', '4096', '-J', 'size=4']],
    ['of block lists', ['-b', '1024', '-O', '^extents,^64bit']],
  ])('%s is compared, or refused', async (_name, words) => {
    const path = join(dir, 'hostile');
    await makeExt4(path, join(dir, 'tree'), ...words);
    const sound = await bytesOf(path);
    const used: number[] = [];
    for (let at = 0; at < sound.length; at += KIBIBYTE)
      if (sound.subarray(at, at + KIBIBYTE).some((byte) => byte !== 0)) used.push(at);
    let seed = 42;
    const random = (below: number) => (seed = (seed * 48_271) % 2_147_483_647) % below;
    const codes = new Set<string>();
    for (let round = 0; round < HOSTILE; round += 1) {
      const bytes = Buffer.from(sound);
      for (let flips = 1 + random(8); flips > 0; flips -= 1)
        bytes[(used[random(used.length)] ?? 0) + random(KIBIBYTE)] = random(4) * 85;
      const one = new Ext4Volume(memoryDisk(sound, 1));
      const changed = async () => compareVolumes(one, new Ext4Volume(memoryDisk(bytes, 2)));
      await changed().catch((error: unknown) => {
        if (!(error instanceof RangeError)) codes.add((error as { code: string }).code);
      });
    }
    expect([...codes]).toEqual(['ERR_DIFF_FILE_SYSTEM']);
  });

  it('without a file system, or an encrypted one, is refused', async () => {
    const empty = Buffer.alloc(2 ** 20);
    expect(() => new Ext4Volume(memoryDisk(empty))).toThrow('no ext4');
    const bytes = await bytesOf(before);
    bytes.writeUInt32LE(bytes.readUInt32LE(1024 + 0x60) | 0x10000, 1024 + 0x60);
    expect(() => new Ext4Volume(memoryDisk(bytes))).toThrow('encrypted');
  });
});
