/** Journals that a guest may have written to keep a host busy. */
import { describe, expect, it } from 'vitest';
import { replayedBlocks } from '../../../../src/storage/ext4/journal.ts';

const BLOCK_BYTES = 4096;
const MAGIC = 0xc03b3998;
const KIND = { descriptor: 1, commit: 2, superblock: 4, revoke: 5 } as const;
const TAG_LAST = 8;
const TAG_SAME_UUID = 2;

function block(kind: number, sequence: number, words: readonly number[] = []): Buffer {
  const bytes = Buffer.alloc(BLOCK_BYTES);
  [MAGIC, kind, sequence, ...words].forEach((word, at) => bytes.writeUInt32BE(word, at * 4));
  return bytes;
}

/** A journal's own superblock: it begins at block 1. */
function superblock(o: { length: number; start: number }): Buffer {
  const bytes = block(KIND.superblock, 0);
  bytes.writeUInt32BE(o.length, 0x10);
  bytes.writeUInt32BE(1, 0x14);
  bytes.writeUInt32BE(1, 0x18);
  bytes.writeUInt32BE(o.start, 0x1c);
  return bytes;
}

/** A block that revokes as many as it can. */
function revoking(): Buffer {
  const bytes = block(KIND.revoke, 1);
  bytes.writeUInt32BE(BLOCK_BYTES, 12);
  return bytes;
}
const REVOKED_EACH = (BLOCK_BYTES - 16) / 4;

describe('a journal', () => {
  it('gives what a whole transaction has written, less what it has revoked', () => {
    const tags = [7, TAG_SAME_UUID, 8, TAG_SAME_UUID, 9, TAG_SAME_UUID | TAG_LAST];
    const revoked = block(KIND.revoke, 1, [20, 8]);
    const data = Buffer.alloc(BLOCK_BYTES, 'data');
    const all = [
      ...[superblock({ length: 8, start: 1 }), block(KIND.descriptor, 1, tags)],
      ...[data, data, data, revoked, block(KIND.commit, 1)],
      block(KIND.descriptor, 2, [5, TAG_SAME_UUID | TAG_LAST]), // and no commit
    ];
    const found = replayedBlocks((at) => all[at] ?? data, all.length);
    expect([...found]).toEqual([
      [7, { at: 2, escaped: false }],
      [9, { at: 4, escaped: false }],
    ]);
  });

  it('that revokes without end in one transaction is refused', () => {
    const length = Math.ceil(2 ** 20 / REVOKED_EACH) + 10;
    const first = superblock({ length, start: 1 });
    const more = revoking();
    expect(() => replayedBlocks((at) => (at === 0 ? first : more), length)).toThrow(
      'its journal revokes too much',
    );
    const fewer = superblock({ length: length - 12, start: 1 });
    expect(replayedBlocks((at) => (at === 0 ? fewer : more), length).size).toBe(0);
  });

  it('that leads back into itself is read once round', () => {
    const first = superblock({ length: 100, start: 50 });
    const same = block(KIND.descriptor, 1, [1, TAG_SAME_UUID | TAG_LAST]);
    let reads = 0;
    const read = (at: number) => {
      reads += 1;
      return at === 0 ? first : same;
    };
    expect(replayedBlocks(read, 100).size).toBe(0);
    expect(reads).toBeLessThanOrEqual(101);
  });

  it.each([
    ['is longer than the file that it is in', { length: 101, start: 1 }],
    ['starts behind its end', { length: 100, start: 100 }],
    ['has no length', { length: 1, start: 1 }],
  ])('that %s is refused', (_how, o) => {
    expect(() => replayedBlocks(() => superblock(o), 100)).toThrow(
      'its journal contradicts itself',
    );
  });
});
