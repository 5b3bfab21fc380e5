import { describe, expect, it } from 'vitest';
import { joined, ownPages } from '../../../../src/vm/template/memory.ts';

const PRESENT = 0x8000_0000;
const SWAPPED = 0x4000_0000;
const FILE_PAGE = 0x2000_0000;

/** A pagemap with these upper halves of its entries. */
function pagemap(...flags: number[]): Buffer {
  const bytes = Buffer.alloc(flags.length * 8, 0xff); // the lower half is a frame number
  for (const [page, value] of flags.entries()) bytes.writeUInt32LE(value >>> 0, page * 8 + 4);
  return bytes;
}

describe('ownPages', () => {
  it.each([
    ['nothing where nothing is', [0, 0], []],
    ['a page in memory', [0, PRESENT], [{ page: 1, count: 1 }]],
    ['a page that is swapped out', [SWAPPED], [{ page: 0, count: 1 }]],
    ['none that is still the file’s', [PRESENT | FILE_PAGE, 0], []],
    [
      'runs, cut where a page is missing or the file’s',
      [PRESENT, SWAPPED, 0, PRESENT, PRESENT | FILE_PAGE, PRESENT],
      [
        { page: 0, count: 2 },
        { page: 3, count: 1 },
        { page: 5, count: 1 },
      ],
    ],
  ])('gives %s', (_, flags, runs) => {
    expect([...ownPages(pagemap(...flags), flags.length)]).toEqual(runs);
  });

  it('looks at no more than it is told', () => {
    expect([...ownPages(pagemap(PRESENT, PRESENT), 1)]).toEqual([{ page: 0, count: 1 }]);
  });
});

describe('joined', () => {
  const runs = [
    { page: 0, count: 2 },
    { page: 4, count: 1 },
    { page: 9, count: 3 },
  ];

  it.each([
    ['nothing where no gap is allowed', 0, runs],
    [
      'what is near',
      2,
      [
        { page: 0, count: 5 },
        { page: 9, count: 3 },
      ],
    ],
    ['all where all is near', 4, [{ page: 0, count: 12 }]],
  ])('puts together %s', (_, maxGap, expected) => {
    expect([...joined(runs, maxGap)]).toEqual(expected);
  });

  it('gives nothing for nothing', () => {
    expect([...joined([], 8)]).toEqual([]);
  });
});
