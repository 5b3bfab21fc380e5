/** Taps and rules of VMs on a host of the tests' own, with the real ip and nft; no VM is needed for them. */
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { STEP_CHANNEL } from '../../../src/steps.ts';
import { TestHost } from './test-host.ts';

const STATE = 'abcdef012345';
const TAP_MODULE = join(import.meta.dirname, '../../../src/network/tap.ts');
/** Options of one VM; its number tells it from others. */
const OPTIONS = `
  const attachVm = async (o) => {
    const { network: vm, whole } = await network.takeTap(o);
    await whole;
    return vm;
  };
  const options = (n, more = {}) => ({ vmId: 'aaaaaaaaaa0' + n, state: '${STATE}',
    mac: '02:00:00:00:00:0' + n, policy: nft.DEFAULT_POLICY, ...more });`;

let host: TestHost;
beforeAll(async () => {
  host = await TestHost.start();
});
afterAll(async () => {
  await host[Symbol.asyncDispose]();
});

const taps = async () =>
  (
    JSON.parse(await host.run('ip', '-json', '-details', 'address', 'show')) as Record<
      string,
      unknown
    >[]
  ).filter(({ ifname }) => ifname !== 'lo');
const ruleset = () => host.run('nft', 'list', 'ruleset');

it('a host that does not forward is refused, and set up by one call', async () => {
  const [refusal, first, second, undone, again] = await host.module(`${OPTIONS}
    await attachVm(options(1)).catch((e) => say(failure(e)));
    say(await network.setUpNetwork());
    say(await network.setUpNetwork());
    say(await network.undoNetworkSetup());
    say(await network.setUpNetwork());`);
  expect(refusal).toMatchObject({
    code: 'ERR_NETWORK_SETUP',
    hint: expect.stringContaining('qmp-agent setup network'),
  });
  const changed = (steps: unknown) => (steps as { changed: boolean }[]).map((step) => step.changed);
  expect(changed(first)).toEqual([true, true, true, true]);
  expect(changed(second)).toEqual([false, false, false, false]);
  expect(changed(undone)).toEqual([true, true, true, true]);
  expect(changed(again)).toEqual([true, true, true, true]);
  expect(await host.run('ip', 'xfrm', 'policy')).toMatch(
    /src 10\.210\.0\.0\/16 .*\n.*dir (in|fwd) action block/,
  );
  expect(await taps()).toEqual([]);
});

it('a set-up that fails takes back what it has done, and nothing that was there before', async () => {
  const state = async () => [
    await host.run('cat', '/proc/sys/net/ipv4/ip_forward'),
    await ruleset(),
    await host.run('ip', 'xfrm', 'policy'),
    await host.run('sh', '-c', 'ls /etc/sysctl.d'),
  ];
  const failing = () =>
    host.module(`await network.setUpNetwork().then(() => say('done'), (e) => say(failure(e)));`);
  const whole = await state();
  // Somebody's earlier one, of which a part was lost.
  await host.run('rm', '/etc/sysctl.d/60-qmp-agent.conf');
  const before = await state();
  await host.run('mount', '-o', 'remount,ro', '/etc/sysctl.d');
  expect(await failing()).toMatchObject([{ code: 'ERR_HOST_PERMISSION' }]);
  expect(await state()).toEqual(before);
  // None before.
  await host.module('await network.undoNetworkSetup();');
  const none = await state();
  expect(none[0]).toBe('0\n');
  expect(await failing()).toMatchObject([{ code: 'ERR_HOST_PERMISSION' }]);
  expect(await state()).toEqual(none);
  await host.run('mount', '-o', 'remount,rw', '/etc/sysctl.d');
  expect(await failing()).toEqual(['done']);
  expect(await state()).toEqual(whole);
});

it('a VM gets a tap that is up, with rules of its own, and gives all of it back', async () => {
  const before = await ruleset();
  const [vm] = (await host.module(`${OPTIONS} say(await attachVm(options(1)));`)) as [
    Record<string, unknown>,
  ];
  expect(vm).toMatchObject({
    tap: 'qmpa1',
    gatewayAddress: '10.210.0.2',
    guestAddress: '10.210.0.3',
  });
  expect(await taps()).toMatchObject([
    {
      ifname: 'qmpa1',
      ifalias: `qmp-agent:${STATE}:aaaaaaaaaa01`,
      group: '20813',
      address: '02:71:6d:70:61:01',
      flags: expect.arrayContaining(['UP']),
      addr_info: [{ family: 'inet', local: '10.210.0.2', prefixlen: 31 }],
    },
  ]);
  expect(await host.run('ip', 'neighbour', 'show', 'dev', 'qmpa1')).toMatch(
    /10\.210\.0\.3 lladdr 02:00:00:00:00:01 PERMANENT/,
  );
  expect(await ruleset()).toContain('out_qmpa1');
  const kept = await host.module(`
    await network.undoNetworkSetup().catch((e) => say(failure(e)));
    await network.detachVm(${JSON.stringify(vm)}, 'another');
    say((await new nft.NftClient().taps()));
    await network.detachVm(${JSON.stringify(vm)}, 'aaaaaaaaaa01');
    await network.detachVm(${JSON.stringify(vm)}, 'aaaaaaaaaa01');`);
  expect(kept).toMatchObject([
    { code: 'ERR_NETWORK_SETUP', message: expect.stringContaining('qmpa1') },
    ['qmpa1'],
  ]);
  expect(await taps()).toEqual([]);
  expect(await ruleset()).toBe(before);
});

it('processes that add VMs at once get different taps, and rules where somebody flushed them', async () => {
  await host.run('nft', 'flush', 'ruleset');
  const groups = [
    [1, 2, 3],
    [4, 5, 6],
    [7, 8, 9],
  ];
  const made = (await Promise.all(
    groups.map((group) =>
      host.module(`${OPTIONS}
        await Promise.all(${JSON.stringify(group)}.map(async (n) => say(await attachVm(options(n)))));`),
    ),
  )) as { tap: string; guestAddress: string }[][];
  const all = made.flat();
  for (const field of ['tap', 'guestAddress'] as const) {
    expect(new Set(all.map((vm) => vm[field])).size).toBe(9);
  }
  const [swept, kept] = await host.module(`
    const take = async (id, takeAway) => takeAway();
    say(await network.sweepTaps('another-state', take));
    const kept = ['aaaaaaaaaa02', 'aaaaaaaaaa07'];
    await network.sweepTaps('${STATE}', async (id, takeAway) => !kept.includes(id) && takeAway());
    say(await new nft.NftClient().taps());`);
  expect(swept).toEqual([]);
  expect(kept).toHaveLength(2);
  expect(await taps()).toHaveLength(2);
  await host.module(`await network.sweepTaps('${STATE}', async (id, takeAway) => takeAway());`);
  expect(await taps()).toEqual([]);
  expect(await ruleset()).not.toContain('qmpa');
});

it('rules of a tap that vanished go too', async () => {
  await host.module(`${OPTIONS} await attachVm(options(1));`);
  await host.run('ip', 'link', 'delete', 'qmpa1');
  expect(await ruleset()).toContain('out_qmpa1');
  await host.module(`await network.sweepTaps('${STATE}', async () => false);`);
  expect(await ruleset()).not.toContain('out_qmpa1');
});

it('VMs have addresses from the pool that the host is set up with, and so has what guards them', async () => {
  const policies = () => host.run('ip', 'xfrm', 'policy');
  const [refused, ...others] = await host.module(`${OPTIONS}
    await network.setUpNetwork({ pool: '192.168.64.0/24' });
    const vm = await attachVm(options(1));
    await network.setUpNetwork({ pool: '10.9.0.0/16' }).catch((e) => say(failure(e)));
    say(vm.guestAddress);
    say((await network.setUpNetwork()).some(({ changed }) => changed));
    say(await network.isSetUp());
    await network.detachVm(vm, 'aaaaaaaaaa01');`);
  expect(refused).toMatchObject({
    code: 'ERR_NETWORK_SETUP',
    message: expect.stringMatching(/10\.9\.0\.0\/16.*192\.168\.64\.0\/24 \(qmpa1\)/),
  });
  expect(others).toEqual(['192.168.64.3', false, true]);
  expect(await policies()).toContain('src 192.168.64.0/24');
  expect(await policies()).not.toContain('src 10.210.');
  await host.run('nft', 'flush', 'ruleset'); // what is made anew then is for the same pool
  await host.run('ip', 'xfrm', 'policy', 'flush');
  const [back] = await host.module(`${OPTIONS}
    const vm = await attachVm(options(1));
    await network.detachVm(vm, 'aaaaaaaaaa01');
    say((await network.setUpNetwork({ pool: network.DEFAULT_POOL })).filter(({ changed }) => changed).length);`);
  expect(back).toBe(2);
  expect(await policies()).toContain('src 10.210.0.0/16');
  expect(await policies()).not.toContain('192.168.64.0');
});

it('what cannot be is refused by name, and leaves nothing', async () => {
  const refused = await host.module(`${OPTIONS}
    await network.setUpNetwork();
    const refuse = (o) => attachVm(options(1, o)).catch((e) => say(failure(e)));
    await network.setUpNetwork({ pool: '8.8.0.0/16' }).catch((e) => say(failure(e)));
    await refuse({ policy: { ...nft.DEFAULT_POLICY, exceptions: ['nonsense'] } });
    await refuse({ mac: 'nonsense' });
    await refuse({ signal: AbortSignal.abort(new Error('given up')) });
    await network.setUpNetwork({ pool: '10.210.0.0/29' });
    const all = await Promise.allSettled([1, 2, 3, 4].map((n) => attachVm(options(n))));
    say(all.filter(({ status }) => status === 'rejected').map(({ reason }) => failure(reason)));
    await network.sweepTaps('${STATE}', async (id, takeAway) => takeAway());
    await network.setUpNetwork({ pool: network.DEFAULT_POOL });`);
  expect(refused).toMatchObject([
    { code: 'ERR_CONFIG', message: expect.stringContaining('8.8.0.0/16') },
    { code: 'ERR_NETWORK_POLICY' },
    { code: 'ERR_NETWORK_POLICY' },
    { message: 'given up' },
    [{ code: 'ERR_NETWORK_SETUP', message: 'all 3 networks of 10.210.0.0/29 are taken' }],
  ]);
  expect(await taps()).toEqual([]);
  expect(await ruleset()).not.toContain('qmpa');
});

it.each([
  [
    'the tap cannot go up',
    "execFileSync('ip', ['address', 'add', '10.210.0.2/31', 'dev', 'qmpa1'])",
  ],
  ['the start is given up', "controller.abort(new Error('given up'))"],
  [
    'nothing can be written of it',
    "execFileSync('sh', ['-c', 'mkdir -p $0; touch $0/network', dir])",
  ],
])('a tap outlives that %s: a QEMU may be about to open it', async (_, fault) => {
  const [failed, left, all] = await host.module(`
    import { execFileSync } from 'node:child_process';
    import { mkdtempSync } from 'node:fs';
    import { subscribe } from 'node:diagnostics_channel';
    await network.setUpNetwork();
    const dir = mkdtempSync('/run/qmp-agent-network/state-') + '/run';
    const controller = new AbortController();
    subscribe('${STEP_CHANNEL}', ({ step }) => { if (step === 'up') { ${fault}; } });
    const { whole } = await network.joinNetwork({ runtimeDir: dir, vmId: 'aaaaaaaaaa01', egress: {}, publish: [],
      mac: '02:00:00:00:00:01', logPath: dir + '/log', signal: controller.signal });
    say(await whole.then(() => 'whole', () => 'failed'));
    const links = () => execFileSync('ip', ['-brief', 'link'], { encoding: 'utf8' });
    say(links());
    await network.leaveNetwork(dir, 'aaaaaaaaaa01');
    say(links());`);
  expect(failed).toBe('failed');
  expect(left).toContain('qmpa1');
  expect(all).not.toContain('qmpa1');
  expect(await ruleset()).not.toContain('qmpa');
});

it('what ip refuses is an error of ours, with its words and a remedy', async () => {
  const [refused] = await host.module(`
    const { makeTap } = await import('${TAP_MODULE}');
    const at = { index: 9, tap: 'lo', guestAddress: '10.210.0.19', gatewayAddress: '10.210.0.18' };
    await makeTap(at, { state: '${STATE}', vmId: 'aaaaaaaaaa01' }).catch((e) => say({ ...failure(e), stderr: e.stderr }));`);
  expect(refused).toMatchObject({
    code: 'ERR_NETWORK_INTERFACE',
    message: expect.stringMatching(/^ip: .+/),
    stderr: expect.stringMatching(/busy|exists/i),
    hint: expect.stringContaining('ip link'),
  });
});

it('a VM inherits nothing of the one that had its tap before, whatever became of that', async () => {
  // Made, and its maker died.
  await host.run(
    'touch',
    '/run/qmp-agent-network/making-qmpa7',
    '/run/qmp-agent-network/making-qmpa8',
  );
  await host.run('ip', 'tuntap', 'add', 'dev', 'qmpa7', 'mode', 'tap');
  const [swept] = await host.module(`${OPTIONS}
    await network.setUpNetwork();
    const open = { ...nft.DEFAULT_POLICY, exceptions: ['192.168.7.0/24'], rules: [{ ...nft.DEFAULT_RULES[0],
      destination: { kind: 'addresses', cidrs: ['192.168.7.0/24'] } }] };
    await attachVm(options(1, { policy: open }));
    say(await network.sweepTaps('${STATE}', async () => false));`);
  expect(swept).toEqual(['qmpa7']);
  expect(await host.run('ls', '/run/qmp-agent-network')).not.toContain('making');
  expect(await ruleset()).toContain('192.168.7.0/24');
  await host.run('ip', 'link', 'delete', 'qmpa1');
  const [second] = (await host.module(`${OPTIONS} say(await attachVm(options(2)));`)) as [
    { tap: string },
  ];
  expect(second.tap).toBe('qmpa1');
  const rules = await ruleset();
  expect(rules).not.toContain('192.168.7.0/24');
  expect(rules).not.toContain('02:00:00:00:00:01');
  await host.module(`await network.sweepTaps('${STATE}', async (id, takeAway) => takeAway());`);
  expect(await ruleset()).not.toContain('qmpa1');
});

it.each(['qmpa5', 'qmpb5'])(
  'a tap %s of a user’s own is left alone, though it is down',
  async (tap) => {
    await host.run('ip', 'tuntap', 'add', 'dev', tap, 'mode', 'tap');
    const [swept] = await host.module(
      `say(await network.sweepTaps('${STATE}', async (id, takeAway) => takeAway()));`,
    );
    expect(swept).toEqual([]);
    expect((await taps()).map(({ ifname }) => ifname)).toEqual([tap]);
    await host.run('ip', 'link', 'delete', tap);
  },
);

it('a namespace full of rules, in which they are measured, is gone afterwards', async () => {
  const [fewMs, manyMs, left] = (await host.module(`
    const lab = await network.RulesLab.open({});
    try {
      for (const count of [2, 120]) {
        await lab.fill(count, {});
        say(await lab.addOne({}));
      }
    } finally {
      await lab[Symbol.asyncDispose]();
    }
    say(ownNamespaces());`)) as [number, number, string[]];
  expect(left).toEqual([]);
  expect(fewMs).toBeGreaterThan(0);
  expect(manyMs).toBeGreaterThan(0);
  expect(await taps()).toEqual([]);
});
