/** A host that joins networks while a VM runs: real addresses and routes, the real service, a namespace for a guest. */
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it, vi } from 'vitest';
import { SCALE } from '../../scale.ts';
import { sandbox, type Sandbox } from '../cli/command.ts';
import { Peer, PEER_SCRIPT } from '../nft/network.ts';
import { TestHost } from './test-host.ts';

const VM = 'aaaaaaaaaa01';
const MAC = '02:00:00:00:00:01';
const GATEWAY_MAC = '02:71:6d:70:61:01';
const CHANGES = join(import.meta.dirname, '../../../src/network/service/host-changes.ts');
const CABLE = join(import.meta.dirname, 'tap-cable.py');
const GUEST = 'fd12:3456:789a::3';
const GATEWAY = 'fd12:3456:789a::2';
const NEAR = '2a00:2::10';
const FAR = '2a00:3::10';
/** The host's address in the network of the first: with it, the host reaches that without a router. */
const HOST_NEAR = '2a00:2::1/64';
/** The service looks every 2 s. */
const SOON = { timeout: 15_000 * SCALE, interval: 50 };

let box: Sandbox;
let host: TestHost;
let internet: TestHost;
let machine: TestHost;
let cable: ChildProcess;
let guest: Peer;
let upstream: Peer;

beforeAll(async () => {
  box = await sandbox();
  [host, internet, machine] = [
    await TestHost.start(),
    await TestHost.start(),
    await TestHost.start(),
  ];
  const veth = ['eth0', 'type', 'veth', 'peer', 'name', 'eth0', 'netns', String(internet.pid)];
  await host.run('ip', 'link', 'add', ...veth);
  for (const [side, addresses] of [
    [host, ['2a00:1::1/64', '203.0.113.1/24']],
    [internet, ['2a00:1::fe/64', `${NEAR}/64`, `${FAR}/64`]],
  ] as const) {
    for (const address of addresses) await addAddress(side, address);
    await side.run('ip', 'link', 'set', 'eth0', 'up');
  }
  await host.run('ip', '-6', 'route', 'add', 'default', 'via', '2a00:1::fe');
  await join6({});
  const [file, args] = host.command(['python3', CABLE, 'qmpa1', String(machine.pid), MAC]);
  cable = spawn(file, args, { stdio: ['ignore', 'pipe', 'inherit'] });
  await once(cable.stdout!, 'data');
  await machine.run('ip', 'link', 'set', 'eth0', 'addrgenmode', 'none', 'up');
  await addAddress(machine, `${GUEST}/127`);
  const gateway = ['lladdr', GATEWAY_MAC, 'dev', 'eth0', 'nud', 'permanent'];
  await machine.run('ip', 'neighbour', 'add', GATEWAY, ...gateway);
  await machine.run('ip', '-6', 'route', 'add', 'default', 'via', GATEWAY);
  [guest, upstream] = [peerIn(machine), peerIn(internet)];
  await Promise.all([guest.ready(), upstream.ready()]);
  await upstream.do('listen', { address: '::', tcp: [443], udp: [] });
});
afterAll(async () => {
  guest.close();
  upstream.close();
  cable.kill('SIGKILL');
  await host.module(`await network.leaveNetwork('${box.dir}/run', '${VM}');`);
  for (const one of [machine, internet, host]) await one[Symbol.asyncDispose]();
  await box[Symbol.asyncDispose]();
});

const addAddress = (side: TestHost, address: string) =>
  side.run(
    ...['ip', 'address', 'add', address, 'dev', 'eth0'],
    ...(address.includes(':') ? ['nodad'] : []),
  );
const join6 = (egress: object) =>
  host.module(`
    await network.setUpNetwork({ ipv6: 'fd12:3456:789a::/64' });
    const { whole } = await network.joinNetwork({ runtimeDir: '${box.dir}/run', vmId: '${VM}', mac: '${MAC}',
      egress: ${JSON.stringify(egress)}, publish: [], ipv6: true, logPath: '${box.dir}/log' });
    await whole;
    await network.awaitNames({ runtimeDir: '${box.dir}/run', vmId: '${VM}' });`);
const peerIn = (side: TestHost) => {
  const [file, args] = side.command(['python3', PEER_SCRIPT]);
  return new Peer([file, ...args]);
};
const connect = (to: string, id = `to ${to}`) =>
  guest.do('tcp_connect', { id, to, port: 443, timeoutS: 3 });
const say = (to: string) => guest.do('say', { id: `to ${to}` });
const soon = (to: string, outcome: string) =>
  vi.waitFor(async () => expect(await connect(to, 'tried')).toBe(outcome), SOON);

it('what it joins is shut within seconds and cut off, on record as its own network, and opens when it leaves', async () => {
  expect([await connect(NEAR), await connect(FAR)]).toEqual(['ok', 'ok']);
  expect([await say(NEAR), await say(FAR)]).toEqual(['echo', 'echo']);
  await addAddress(host, HOST_NEAR);
  await soon(NEAR, 'ECONNREFUSED');
  expect([await say(NEAR), await say(FAR)]).toEqual(['ECONNRESET', 'echo']);
  expect(await connect(FAR, 'another')).toBe('ok');
  await vi.waitFor(async () => {
    const lines = (await readFile(`${box.dir}/log`, 'utf8')).trim().split('\n');
    expect(lines.map((line) => JSON.parse(line) as unknown)).toContainEqual(
      expect.objectContaining({
        ...{ kind: 'denied', from: GUEST, to: NEAR, toPort: 443, cause: 'rule' },
        ...{ rule: "the host's own networks", remedy: `--allow-cidr [${NEAR}]:443` },
      }),
    );
  }, SOON);
  expect(await readFile(`${box.dir}/run/network/service.log`, 'utf8')).toContain(
    "the host's own networks are now 2a00:1::/64, 2a00:2::/64\n",
  );
  await host.run('ip', 'address', 'delete', HOST_NEAR, 'dev', 'eth0');
  await soon(NEAR, 'ok');
});

it('they are known to rules that were flushed and come again, and to a VM that starts', async () => {
  const known = () => host.module('say(await new nft.NftClient().hostNetworks());');
  await addAddress(host, HOST_NEAR);
  await host.run('nft', 'flush', 'ruleset');
  await host.module(`await network.sweepNetwork('${box.dir}/run', async () => false);`);
  expect(await known()).toEqual([['2a00:1::/64', '2a00:2::/64']]);
  expect([await connect(NEAR), await connect(FAR)]).toEqual(['ECONNREFUSED', 'ok']);
  await host.run('ip', 'address', 'delete', HOST_NEAR, 'dev', 'eth0');
  const [one, two] = await host.module(`
    const { whole } = await network.takeTap({ vmId: 'aaaaaaaaaa02', state: 'abcdef012345', ipv6: true,
      mac: '02:00:00:00:00:02', policy: nft.DEFAULT_POLICY });
    await whole;
    say(await new nft.NftClient().hostNetworks());
    say(await network.sweepTaps('abcdef012345', async (id, takeAway) => takeAway()));`);
  expect([one, two]).toEqual([['2a00:1::/64'], ['qmpa2']]);
});

it('a pool into which the host has routes by now is told of, once', async () => {
  await host.run('ip', 'address', 'add', '10.210.77.1/24', 'dev', 'eth0');
  const said = await host.module(`
    const { HostChanges } = await import('${CHANGES}');
    const changes = new HostChanges(say);
    for (let looks = 0; looks < 40; looks++) await changes.look({ hasIpv6: false });`);
  expect(said).toEqual([expect.stringMatching(/10\.210\.0\.0\/16.*10\.210\.77\.0\/24 dev eth0/)]);
});
