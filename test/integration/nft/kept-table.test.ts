/** The table that goes with its owner: what is asked for at once is done one after the other. */
import { afterAll, beforeAll, expect, it } from 'vitest';
import { TestHost } from '../network/test-host.ts';

let host: TestHost;
beforeAll(async () => {
  host = await TestHost.start();
});
afterAll(() => host[Symbol.asyncDispose]());

it('is there or is not as the last of several calls says', async () => {
  const said = await host.module(`
    import { execFileSync } from 'node:child_process';
    const tables = () => execFileSync('nft', ['list', 'tables'], { encoding: 'utf8' }).match(/_keep_/g)?.length ?? 0;
    const kept = new nft.KeptTable();
    const after = async (what, calls) => {
      await Promise.all(calls);
      say([what, tables()]);
    };
    await after('held, held', [kept.hold(), kept.hold()]);
    await after('released, held', [kept.release(), kept.hold()]);
    await after('released', [kept.release()]);
    await after('held, released', [kept.hold(), kept.release()]);
    // As soon as it is there, and the release has waited for no more than that.
    const [held, released] = [kept.hold(), kept.release()];
    await held;
    await after('held while it is about to be released', [released, kept.hold()]);
    await after('released', [kept.release()]);`);
  expect(said).toEqual([
    ['held, held', 1],
    ['released, held', 1],
    ['released', 0],
    ['held, released', 0],
    ['held while it is about to be released', 1],
    ['released', 0],
  ]);
});
