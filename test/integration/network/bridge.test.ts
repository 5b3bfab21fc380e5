/** Taps on a bridge, on a host of the tests' own, with the real ip and nft; no VM is needed for them. */
import { afterAll, beforeAll, expect, it } from 'vitest';
import { TestHost } from './test-host.ts';

const RUNTIME_DIR = '/run/some-state';
/** A bridge takes the lowest address of its ports: one drawn by the kernel would be above ours once in 64 times. */
const PORT = '02:00:00:00:01:00';
const OPTIONS = `
  import { joinBridge, bridgedTapOf } from '${process.cwd()}/src/network/bridge.ts';
  const options = (n, more = {}) => ({ vmId: 'aaaaaaaaaa0' + n, runtimeDir: '${RUNTIME_DIR}', bridge: 'br0',
    mac: '02:00:00:00:00:0' + n, lan: { address: '192.0.2.' + n + '/24' }, ...more });
  const state = attach.stateKey('${RUNTIME_DIR}');
  const takeAll = async (id, takeAway) => takeAway();`;

let host: TestHost;
beforeAll(async () => {
  host = await TestHost.start();
  await host.run('ip', 'link', 'add', 'br0', 'type', 'bridge');
  await host.run(
    'ip',
    'link',
    'add',
    'one',
    'address',
    PORT,
    'type',
    'veth',
    'peer',
    'name',
    'other',
  );
  await host.run('ip', 'link', 'set', 'one', 'master', 'br0', 'up');
  for (const name of ['other', 'br0']) await host.run('ip', 'link', 'set', name, 'up');
});
afterAll(async () => {
  await host[Symbol.asyncDispose]();
});

interface Link {
  readonly ifname: string;
  readonly address: string;
  readonly master?: string;
}
const links = async () => JSON.parse(await host.run('ip', '-json', 'link')) as Link[];
const ports = async () => (await links()).filter(({ ifname }) => ifname.startsWith('qmp'));
const ruleset = () => host.run('nft', 'list', 'ruleset');

it('a VM gets a port that says whose it is, with a guard, and gives both back; the bridge stays what it was', async () => {
  const bridge = async () => (await links()).find(({ ifname }) => ifname === 'br0')?.address;
  const before = await bridge();
  const said = await host.module(`${OPTIONS}
    say(await joinBridge(options(1)));
    say(await joinBridge(options(2)));
    say(await joinBridge(options(1)));
    say(await bridgedTapOf('${RUNTIME_DIR}', 'aaaaaaaaaa02'));`);
  expect(said).toEqual(['qmpb1', 'qmpb2', 'qmpb1', 'qmpb2']);
  expect(await ports()).toMatchObject([
    {
      ifname: 'qmpb2',
      master: 'br0',
      address: 'fe:00:00:00:00:02',
      flags: expect.arrayContaining(['UP']),
    },
    {
      ifname: 'qmpb1',
      master: 'br0',
      address: 'fe:00:00:00:00:01',
      flags: expect.arrayContaining(['UP']),
    },
  ]);
  expect(await bridge()).toEqual(before);
  expect(await ruleset()).toMatch(/qmp_agent_qmpb1[\s\S]*02:00:00:00:00:01[\s\S]*192\.0\.2\.1/);
  await host.module(`${OPTIONS} await network.leaveNetwork('${RUNTIME_DIR}', 'aaaaaaaaaa01');`);
  expect((await ports()).map(({ ifname }) => ifname)).toEqual(['qmpb2']);
  expect(await ruleset()).not.toContain('qmpb1');
  const [kept, swept] = await host.module(`${OPTIONS}
    say(await network.sweepNetwork('${RUNTIME_DIR}', async () => false));
    say(await network.sweepNetwork('${RUNTIME_DIR}', takeAll));`);
  expect([kept, swept]).toEqual([[], ['qmpb2']]);
  expect([await ports(), await ruleset()]).toEqual([[], '']);
});

it.each(['tap', 'rules', 'up'])(
  'a process that dies at the step %s leaves nothing, once gc has run',
  async (at) => {
    const dying = host.module(`${OPTIONS}
    import { subscribe } from 'node:diagnostics_channel';
    subscribe('qmp-agent:step', ({ step }) => step === '${at}' && process.kill(process.pid, 'SIGKILL'));
    await joinBridge(options(1));`);
    await expect(dying).rejects.toThrow();
    expect((await ports()).length).toBe(at === 'tap' ? 0 : 1);
    await host.module(`${OPTIONS} await network.sweepNetwork('${RUNTIME_DIR}', takeAll);`);
    expect([await ports(), await ruleset()]).toEqual([[], '']);
  },
);

it('a guard whose tap was taken away by somebody goes too, and is in no other’s way', async () => {
  await host.module(`${OPTIONS} await joinBridge(options(1));`);
  await host.run('ip', 'link', 'delete', 'qmpb1');
  expect(await ruleset()).toContain('qmpb1');
  const [again] = await host.module(`${OPTIONS} say(await joinBridge(options(2)));`);
  expect(again).toBe('qmpb1');
  expect(await ruleset()).not.toContain('02:00:00:00:00:01');
  await host.run('ip', 'link', 'delete', 'qmpb1');
  await host.module(`${OPTIONS} await network.sweepNetwork('${RUNTIME_DIR}', takeAll);`);
  expect(await ruleset()).toBe('');
});

it('guards that somebody has flushed are put back; who cannot be told from others is shut out', async () => {
  const [first] = await host.module(`${OPTIONS}
    for (const n of [1, 2]) await joinBridge(options(n));
    say(await new nft.NftClient().guardedTaps());`);
  expect(first).toEqual(['qmpb1', 'qmpb2']);
  const before = await ruleset();
  // Of another's, and of one that is being made: no business of ours.
  await host.run('ip', 'tuntap', 'add', 'dev', 'qmpb8', 'mode', 'tap');
  await host.run('ip', 'link', 'set', 'qmpb8', 'alias', 'qmp-agent:0123:aaaaaaaaaa08', 'up');
  const mend = (known: number[]) =>
    host.module(`${OPTIONS}
      const who = async (id) => ${JSON.stringify(known)}.map((n) => options(n)).find(({ vmId }) => vmId === id);
      const identityOf = async (id) => {
        const found = await who(id);
        return found && { mac: found.mac, address: found.lan.address.split('/')[0] };
      };
      await network.mendBridgeGuards('${RUNTIME_DIR}', identityOf);`);
  await mend([]); // all have theirs
  expect(await ruleset()).toBe(before);
  await host.run('nft', 'flush', 'ruleset');
  await mend([1, 2]);
  expect(await ruleset()).toBe(before);
  await host.run('nft', 'flush', 'ruleset');
  await mend([1]);
  expect(await ruleset()).toMatch(/qmp_agent_qmpb1[\s\S]*02:00:00:00:00:01[\s\S]*192\.0\.2\.1/);
  expect(await ruleset()).not.toContain('qmpb2');
  const flags = async (name: string) =>
    JSON.stringify((await ports()).find(({ ifname }) => ifname === name));
  expect(await flags('qmpb1')).toContain('"UP"');
  expect(await flags('qmpb2')).not.toContain('"UP"');
  expect(await flags('qmpb8')).toContain('"UP"');
  await host.module(`${OPTIONS} await network.sweepNetwork('${RUNTIME_DIR}', takeAll);`);
  await host.run('ip', 'link', 'delete', 'qmpb8');
  expect([await ports(), await ruleset()]).toEqual([[], '']);
});

it('what cannot be is refused by name, and leaves nothing', async () => {
  const refused = await host.module(`${OPTIONS}
    const refuse = (o) => joinBridge(options(1, o)).catch((e) => say(failure(e)));
    await refuse({ bridge: 'br7' });
    await refuse({ bridge: 'other' });
    await refuse({ lan: { address: '192.0.2.300/24' } });
    await refuse({ signal: AbortSignal.abort(new Error('given up')) });
    process.env.PATH = '/nonexistent';
    await refuse({});`);
  expect(refused).toMatchObject([
    { code: 'ERR_NETWORK_SETUP', message: expect.stringContaining('there is no interface br7') },
    { code: 'ERR_NETWORK_SETUP', message: expect.stringContaining('other is no bridge') },
    { code: 'ERR_CONFIG' },
    { message: 'given up' },
    { code: 'ERR_HOST_TOOL' },
  ]);
  expect([await ports(), await ruleset()]).toEqual([[], '']);
});

it('without the right it is an error that says how to get it', async () => {
  const tsx = `${process.cwd()}/node_modules/tsx/dist/loader.mjs`;
  const body = `import { joinBridge } from '${process.cwd()}/src/network/bridge.ts';
    await joinBridge({ vmId: 'aaaaaaaaaa01', runtimeDir: '${RUNTIME_DIR}', bridge: 'br0', mac: '02:00:00:00:00:01',
      lan: { address: '192.0.2.1/24' } }).catch((e) => console.log(e.code, e.hint));`;
  const node = [process.execPath, '--import', tsx, '--input-type=module', '--eval', body];
  expect(await host.run('setpriv', '--bounding-set=-net_admin', ...node)).toMatch(
    /^ERR_HOST_PERMISSION Run as root/,
  );
  expect(await ports()).toEqual([]);
});
