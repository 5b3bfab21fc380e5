/** Pools of VMs with taps: whoever comes next inherits no connection and no address, and a pool that is closed leaves nothing. */
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it, vi } from 'vitest';
import { SCALE } from '../../scale.ts';
import { BOOT_MS, statePaths } from '../vm/state.ts';
import { LAN, OTHER, WEB, World } from './world.ts';

const ROOT = join(import.meta.dirname, '../../..');
const TEMPLATE = 'pooled';

let world: World;
beforeAll(async () => {
  world = await World.create();
  await world.agent('setup', 'network');
});
afterAll(() => world[Symbol.asyncDispose]());

/** Runs the text of a module with a pool on the host; it is closed at the end. */
const withPool = (options: string, work: string): Promise<unknown[]> =>
  world.module(`
    import { execFileSync } from 'node:child_process';
    import { VmPool } from '${ROOT}/src/pool/index.ts';
    const paths = ${JSON.stringify(statePaths(world.box))};
    const taps = () => execFileSync('ip', ['-o', 'link'], { encoding: 'utf8' }).match(/qmpa\\d+/g) ?? [];
    const page = async (vm, url) =>
      (await vm.commands.run('curl -sS -m 10 ' + url + ' 2>/dev/null || echo failed $?')).stdout.trim().split(' ').slice(0, 2).join(' ');
    const pool = await VmPool.create({ name: 'p', timeoutMs: ${3 * BOOT_MS}, ${options} });
    try {
      ${work}
    } finally {
      await pool.close();
    }`);
const [BY_NAME, BY_ADDRESS] = ['http://web.test/', `http://${WEB}/`];
const SERVED = new RegExp(`^${WEB}:80 `);
const REFUSED = 'failed 7';

async function expectNothingLeft(): Promise<void> {
  await vi.waitFor(
    async () => expect(await world.traces()).toEqual({ taps: [], rules: [], services: [] }),
    { timeout: 30_000 * SCALE, interval: 500 },
  );
}

it('a VM that is reset in place has its policy, and no address that its last user had opened', async () => {
  const vm = `{ paths, network: 'nat-filtered', egress: { allowDomains: ['web.test'] }, timeoutMs: ${BOOT_MS} }`;
  const said = await withPool(
    `strategy: 'savevm', maxSize: 1, vm: ${vm}`,
    `
    const first = await pool.acquire();
    const before = taps();
    for (const url of ['${BY_ADDRESS}', '${BY_NAME}', '${BY_ADDRESS}']) say(await page(first.vm, url));
    const flow = await first.vm.commands.run('curl -sSN -m 60 ${BY_NAME}slow', { background: true, timeoutMs: 0 });
    const cut = flow.wait().then(() => 'ended', (error) => error.code);
    await first.release();
    say(await cut);
    const second = await pool.acquire();
    say([second.vm.id === first.vm.id, String(taps()) === String(before)]);
    for (const url of ['${BY_ADDRESS}', '${BY_NAME}', 'http://${LAN}/']) say(await page(second.vm, url));
    await second.release();`,
  );
  const served: unknown = expect.stringMatching(SERVED);
  expect(said).toEqual([
    ...[REFUSED, served, served],
    'ERR_VM_RESTORED',
    [true, true],
    ...[REFUSED, served, REFUSED],
  ]);
  await expectNothingLeft();
});

it('each clone has a tap and a policy of its own; one that is released is gone with its tap', async () => {
  await world.agent('template', 'create', TEMPLATE, '--network', 'nat-filtered', '-m', '256M');
  const said = await withPool(
    `template: '${TEMPLATE}', minSize: 2, maxSize: 2, vm: { paths, timeoutMs: ${BOOT_MS} }`,
    `
    const [one, two] = [await pool.acquire(), await pool.acquire()];
    const [a, b] = [await one.vm.network.info(), await two.vm.network.info()];
    say([a.tap !== b.tap, a.guestAddress !== b.guestAddress, a.mode, b.mode]);
    say(taps().length);
    await one.vm.network.set({ denyCidrs: ['${OTHER}'] });
    say([await page(one.vm, 'http://${OTHER}/'), await page(two.vm, 'http://${OTHER}/')]);
    say(await page(two.vm, 'http://' + a.guestAddress + '/'));
    await one.release();
    const three = await pool.acquire();
    say(await page(three.vm, 'http://${OTHER}/'));
    const { egress } = await three.vm.network.info();
    say([egress?.denyCidrs ?? [], taps().length]);
    await Promise.all([two.release(), three.release()]);`,
  );
  const served: unknown = expect.stringMatching(`^${OTHER}:80 `);
  expect(said).toEqual([
    [true, true, 'nat-filtered', 'nat-filtered'],
    2,
    [REFUSED, served],
    REFUSED,
    served,
    [[], 2],
  ]);
  await expectNothingLeft();
  await world.agent('template', 'remove', TEMPLATE);
});
