import { describe, expect, it } from 'vitest';
import { MemoryLedger } from '../../../src/pool/memory.ts';

const GIB = 2 ** 30;
const host = (gib: number | undefined) =>
  new MemoryLedger(() => Promise.resolve(gib === undefined ? undefined : gib * GIB));
const claim = (maxSize: number) => ({ pool: 'p', maxSize, bytesPerVm: GIB });

describe('the memory of a host', () => {
  it('is promised until there is none left, with what would fit', async () => {
    const ledger = host(8);
    const first = await ledger.claim(claim(5));
    await expect(ledger.claim(claim(4))).rejects.toMatchObject({
      code: 'ERR_POOL_MEMORY',
      field: 'pool.maxSize',
      value: 4,
      neededBytes: 4 * GIB,
      availableBytes: 3 * GIB,
      message: expect.stringContaining('could use 4 GiB; the host has 3 GiB left'),
      hint: expect.stringMatching(/^Lower maxSize to 3, .*vm\.memoryMib.*countedMemoryMib/),
    });
    await ledger.claim(claim(3));
    await expect(ledger.claim(claim(1))).rejects.toMatchObject({
      hint: expect.stringMatching(/^Free memory/),
    });
    first.release();
    first.release();
    await ledger.claim(claim(5));
  });

  it('is not counted twice where a pool uses what it was promised', async () => {
    let available = 8;
    const ledger = new MemoryLedger(() => Promise.resolve(available * GIB));
    const first = await ledger.claim(claim(5));
    available -= 4;
    first.usedBytes = () => Promise.resolve(4 * GIB);
    await ledger.claim(claim(3));
    await expect(ledger.claim(claim(1))).rejects.toMatchObject({ availableBytes: 0 });
  });

  it('is promised once, however many ask at a time', async () => {
    const ledger = host(8);
    const answers = await Promise.allSettled([claim(5), claim(5)].map((one) => ledger.claim(one)));
    expect(answers.map(({ status }) => status)).toEqual(['fulfilled', 'rejected']);
  });

  it('is promised freely where the host does not tell what it has', async () => {
    await host(undefined).claim(claim(1_000));
  });
});
