/** What the set-up finds on a host, and how it leaves it: on one of the tests' own, with the real ip and kernel. */
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest';
import { SCALE } from '../../scale.ts';
import { TestHost } from './test-host.ts';

const TAP = `{ vmId: 'aaaaaaaaaa01', state: 'abcdef012345', mac: '02:00:00:00:00:01', policy: nft.DEFAULT_POLICY }`;

let host: TestHost;
beforeAll(async () => {
  host = await TestHost.start();
});
afterEach(async () => {
  await host.module('await network.undoNetworkSetup();');
});
afterAll(async () => {
  await host[Symbol.asyncDispose]();
});

const setUp = (o = '{}') =>
  host.module(`await network.setUpNetwork(${o}).then(say, (e) => say(failure(e)));`);
const changes = async (o = '{}') => {
  const [steps] = (await setUp(o)) as [{ changed: boolean }[]];
  return steps.filter(({ changed }) => changed).length;
};

describe('the pool', () => {
  const traces = () =>
    Promise.all([
      host.run('ip', 'xfrm', 'policy'),
      host.run('nft', 'list', 'tables'),
      host.run('cat', '/proc/sys/net/ipv4/ip_forward'),
    ]);
  const NONE = ['', '', '0\n'];
  const ip = (text: string) => host.run('ip', ...text.split(' '));
  const lan = async (address: string) => {
    await ip('tuntap add dev lan0 mode tap');
    await ip('link set lan0 up');
    await ip(`address add ${address} dev lan0`);
  };
  afterEach(async () => {
    await ip('link delete lan0').catch(() => undefined);
  });

  it.each([
    ['the default one', '10.210.7.1/24', '{}', '10.210.7.0/24 dev lan0'],
    ['one that was asked for', '192.168.64.9/28', "{ pool: '192.168.64.0/24' }", '192.168.64.0/28'],
    ['one that is a part of it', '10.0.0.5/8', "{ pool: '10.9.0.0/24' }", '10.0.0.0/8 dev lan0'],
  ])('is not the host’s own network, whose neighbours it would shut out: %s', async (...row) => {
    const [, address, options, route] = row;
    await lan(address);
    const [refused] = await setUp(options);
    expect(refused).toMatchObject({
      code: 'ERR_NETWORK_SETUP',
      message: expect.stringMatching(/^network\.pool cannot be .*: the host has routes into it \(/),
      hint: expect.stringContaining('qmp-agent setup network --pool CIDR'),
    });
    expect(refused).toMatchObject({ message: expect.stringContaining(route) });
    expect(await traces()).toEqual(NONE);
    await changes("{ pool: '172.30.0.0/24' }").then((count) => expect(count).toBe(4));
  });

  it('is not moved to one either, and stays where the host has joined one since', async () => {
    expect(await changes()).toBe(4);
    await lan('10.9.1.1/24');
    expect(await setUp("{ pool: '10.9.0.0/16' }")).toMatchObject([{ code: 'ERR_NETWORK_SETUP' }]);
    expect(await host.run('ip', 'xfrm', 'policy')).not.toContain('10.9.');
    await ip('address add 10.210.7.1/24 dev lan0');
    expect(await changes()).toBe(0);
  });

  it('may be where default routes lead, however they are written, where nothing does, and where our taps are', async () => {
    await lan('203.0.113.1/24');
    for (const to of ['default', '0.0.0.0/1', '8.0.0.0/6'])
      await ip(`route add ${to} via 203.0.113.254`);
    await ip('route add unreachable 10.0.0.0/8');
    await host.module(`
      await network.setUpNetwork();
      await (await network.takeTap(${TAP})).whole;`);
    expect(await ip('route show root 10.210.0.0/16')).toContain('dev qmpa1');
    await host.run('rm', '/etc/sysctl.d/60-qmp-agent.conf'); // what is there is looked at anew
    expect(await changes()).toBe(1);
    await host.module(
      `await network.sweepTaps('abcdef012345', async (id, takeAway) => takeAway());`,
    );
    await ip('route del unreachable 10.0.0.0/8');
  });
});

describe('forwarding', () => {
  it.each(['ipv4', 'ipv6'])(
    'of each interface is after an undo what it was before: %s',
    async (family) => {
      const names = ['all', 'default', `${family}x0`, `${family}x0.5`, `${family}x1`, 'lo'];
      const state = async () =>
        (
          await host.run(
            'cat',
            ...names.map((name) => `/proc/sys/net/${family}/conf/${name}/forwarding`),
          )
        ).split('\n');
      for (const name of [`${family}x0`, `${family}x0.5`, `${family}x1`])
        await host.run('ip', 'tuntap', 'add', 'dev', name, 'mode', 'tap');
      for (const name of [`${family}x0/5`, `${family}x1`])
        await host.run('sysctl', '-q', '-w', `net.${family}.conf.${name}.forwarding=1`);
      const before = await state();
      expect(before).toEqual(['0', '0', '0', '1', '1', '0', '']);
      await setUp('{ ipv6: true }');
      expect(await state()).toEqual(['1', '1', '1', '1', '1', '1', '']);
      await setUp('{ ipv6: true }');
      await host.run('ip', 'link', 'delete', `${family}x1`); // it is another then
      await host.run('ip', 'tuntap', 'add', 'dev', `${family}x2`, 'mode', 'tap');
      names.splice(4, 1, `${family}x2`);
      await host.module('await network.undoNetworkSetup();');
      expect(await state()).toEqual(['0', '0', '0', '1', '0', '0', '']);
      for (const name of [`${family}x0`, `${family}x0.5`, `${family}x2`])
        await host.run('ip', 'link', 'delete', name);
    },
  );
});

it('what lent taps is gone with them, and lends anew where it is asked to', async () => {
  const left = () => host.run('ls', '-A', '/run/qmp-agent-taps');
  const lend = () => setUp('{ taps: { count: 1, uid: 65534 } }');
  const undo = () => host.module('await network.undoNetworkSetup();');
  const gone = { timeout: 30_000 * SCALE, interval: 50 };
  for (const round of [1, 2]) {
    expect(await lend()).toMatchObject([expect.any(Array)]);
    expect([round, await left()]).toEqual([round, expect.stringContaining('service.log')]);
    await undo();
    await vi.waitFor(async () => expect(await left()).toBe(''), gone);
  }
});
