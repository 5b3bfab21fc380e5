/** Limits of a comparison: of trees that are made up as they are gone into, so that they have no end. */
import { describe, expect, it } from 'vitest';
import { compareVolumes } from '../../../src/storage/compare-volumes.ts';
import type { FileType, Inode } from '../../../src/storage/ext4/inode.ts';
import { ROOT_INODE, type Ext4Volume } from '../../../src/storage/ext4/volume.ts';

const NAME = 'n'.repeat(254);
const EMPTY: ReadonlyMap<string, number> = new Map();

function inode(number: number, type: FileType, sizeBytes: number): Inode {
  const bytes = Buffer.alloc(0);
  const facts = { mode: 0o755, uid: 0, gid: 0, sizeBytes, mtime: 0, mtimeNs: 0 };
  return { number, place: number, bytes, type, ...facts };
}

/** @param names what is in a directory; every inode without an entry here is a file */
function volume(names: (number: number) => ReadonlyMap<string, number> | undefined): Ext4Volume {
  return {
    blockBytes: 4096,
    inode: (number: number, same?: Inode) => {
      if (same?.number === number) return same;
      const own = names(number);
      return inode(number, own === undefined ? 'file' : 'directory', own?.size ?? 0);
    },
    names: ({ number }: Inode) => names(number) ?? EMPTY,
    extents: () => [],
    attributes: () => '',
  } as unknown as Ext4Volume;
}

const nothing = volume((number) => (number === ROOT_INODE ? EMPTY : undefined));

describe('a comparison', () => {
  it('refuses a tree that is deeper than any path', async () => {
    const endless = volume((number) => new Map([[NAME, number + 1]]));
    await expect(compareVolumes(nothing, endless)).rejects.toMatchObject({
      code: 'ERR_DIFF_FILE_SYSTEM',
      message: expect.stringContaining('its directories are too deep'),
    });
  });

  it('goes into one that is as deep as that', async () => {
    const deep = volume((number) =>
      number < 258 ? new Map([[NAME, number + 1]]) : number === 258 ? EMPTY : undefined,
    );
    const changes = await compareVolumes(nothing, deep);
    expect(changes).toHaveLength(256);
    expect(changes.at(-1)?.path).toHaveLength(256 * 255);
  });

  it('refuses to tell of more paths than fit into memory', async () => {
    const files = new Map(Array.from({ length: 3_000 }, (_, at) => [`${NAME}${at}`, 1_000]));
    const broad = volume((number) =>
      number < 102 ? new Map([[NAME, number + 1]]) : number === 102 ? files : undefined,
    );
    await expect(compareVolumes(nothing, broad)).rejects.toMatchObject({
      code: 'ERR_DIFF_FILE_SYSTEM',
      message: expect.stringContaining('more has changed than can be told'),
    });
  });

  it('refuses more files than a file system has, also where none has changed', async () => {
    const files = new Map(Array.from({ length: 500_000 }, (_, at) => [`f${at}`, 1_000]));
    const directories = new Map(Array.from({ length: 5 }, (_, at) => [`d${at}`, 10 + at]));
    const full = volume((number) =>
      number === ROOT_INODE ? directories : number < 20 ? files : undefined,
    );
    await expect(compareVolumes(full, full)).rejects.toMatchObject({
      code: 'ERR_DIFF_FILE_SYSTEM',
      message: expect.stringContaining('it has too many files'),
    });
  }, 60_000);

  it('refuses a directory that is in itself', async () => {
    const circle = volume((number) => new Map([[`below-${number}`, ROOT_INODE]]));
    await expect(compareVolumes(nothing, circle)).rejects.toMatchObject({
      message: expect.stringContaining('has two names'),
    });
  });
});
