/** IPv6 on a host of the tests' own, with the real ip, nft and network service; a program in a tap's place of a guest. */
import { spawn, type ChildProcessWithoutNullStreams } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { SCALE } from '../../scale.ts';
import { Capture } from '../../e2e/network/capture.ts';
import { SCHEMA_VERSION } from '../../../nft/names.ts';
import { sandbox, type Sandbox } from '../cli/command.ts';
import { TestHost } from './test-host.ts';

const STATE = 'abcdef012345';
const VM = 'aaaaaaaaaa01';
const MAC = '02:00:00:00:00:01';
const ULA = 'fd12:3456:789a::/64';
const SENDER = join(import.meta.dirname, 'tap-sender.py');
const FILE = '/etc/sysctl.d/60-qmp-agent.conf';
/** Says what datagrams come to a port of any address. */
const LISTENER = `import socket, sys
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM); s.bind(("::", int(sys.argv[1]))); print("up")
while True: print(s.recv(99).decode())`;
/** Has a port of the host's loopback. */
const TAKER = `import socket, sys, time
s = socket.socket(); s.bind(("127.0.0.1", int(sys.argv[1]))); s.listen(); print("up"); time.sleep(600)`;
const TAKE = `
  const take = async (n, more) => {
    const { network: vm, whole } = await network.takeTap({ vmId: 'aaaaaaaaaa0' + n, state: '${STATE}',
      mac: '02:00:00:00:00:0' + n, policy: nft.DEFAULT_POLICY, ...more });
    await whole;
    return vm;
  };
  const sweep = () => network.sweepTaps('${STATE}', async (id, takeAway) => takeAway());`;

let host: TestHost;
beforeAll(async () => {
  host = await TestHost.start();
});
afterAll(async () => {
  await host[Symbol.asyncDispose]();
});

const forwarding = () => host.run('cat', '/proc/sys/net/ipv6/conf/all/forwarding');
const policies = () => host.run('ip', 'xfrm', 'policy');
const changed = (steps: unknown) =>
  (steps as { what: string; changed: boolean }[])
    .filter((one) => one.changed)
    .map(({ what }) => what);
const setUp = (o: string) =>
  host.module(`await network.setUpNetwork(${o}).then(say, (e) => say(failure(e)));`);

describe('the set-up', () => {
  it('has none of it where nobody asks, makes up a prefix once where somebody does, and takes it back', async () => {
    await setUp('{}');
    expect(await forwarding()).toBe('0\n');
    const [refused, first, second] = await host.module(`${TAKE}
      await take(1, { ipv6: true }).catch((e) => say(failure(e)));
      await sweep();
      say(await network.setUpNetwork({ ipv6: true }));
      say(await network.setUpNetwork({ ipv6: true }));`);
    expect(refused).toMatchObject({
      code: 'ERR_NETWORK_SETUP',
      hint: expect.stringContaining('qmp-agent setup network --ipv6'),
    });
    expect(changed(first)).toEqual([
      'net.ipv6.conf.all.forwarding = 1',
      expect.stringMatching(/60-qmp-agent\.conf.* 10\.210\.0\.0\/16 and fd[0-9a-f:]+\/64$/),
      'the same policies for IPv6',
    ]);
    expect(changed(second)).toEqual([]);
    const text = await host.run('cat', FILE);
    const [, ula = ''] = /^# network\.ipv6 = (\S+)$/m.exec(text) ?? [];
    expect(text).toContain('net.ipv6.conf.all.forwarding = 1\n');
    expect(await policies()).toMatch(
      new RegExp(`src ${ula} dst ::/0 *\n.*dir (in|fwd) action block`),
    );
    const [again] = await setUp('{}');
    expect(changed(again)).toEqual([]);
    const [undone] = await host.module('say(await network.undoNetworkSetup());');
    expect(changed(undone)).toHaveLength(6);
    expect([await forwarding(), await policies()]).toEqual(['0\n', '']);
  });

  it('is another’s as before where it was so before, and whole or none where it fails', async () => {
    await host.run('sysctl', '-q', '-w', 'net.ipv6.conf.all.forwarding=1');
    await setUp(`{ ipv6: '${ULA}' }`);
    await host.module('await network.undoNetworkSetup();');
    expect(await forwarding()).toBe('1\n');
    await host.run('sysctl', '-q', '-w', 'net.ipv6.conf.all.forwarding=0');
    await host.run('mount', '-o', 'remount,ro', '/etc/sysctl.d');
    expect(await setUp(`{ ipv6: '${ULA}' }`)).toMatchObject([{ code: 'ERR_HOST_PERMISSION' }]);
    await host.run('mount', '-o', 'remount,rw', '/etc/sysctl.d');
    expect([await forwarding(), await policies()]).toEqual(['0\n', '']);
    expect(await setUp(`{ ipv6: 'fe80::/64' }`)).toMatchObject([{ code: 'ERR_CONFIG' }]);
  });

  it('does not cut off a host that lives by router advertisements', async () => {
    await host.run('ip', 'tuntap', 'add', 'dev', 'ra0.5', 'mode', 'tap');
    await host.run('ip', 'link', 'set', 'ra0.5', 'up');
    await host.run('ip', '-6', 'route', 'add', '2001:db8:7::/64', 'dev', 'ra0.5', 'proto', 'ra');
    const [refused] = await setUp(`{ ipv6: '${ULA}' }`);
    expect(refused).toMatchObject({
      code: 'ERR_NETWORK_SETUP',
      message: expect.stringContaining('router advertisements on ra0.5'),
      hint: expect.stringContaining('sysctl -w net.ipv6.conf.ra0/5.accept_ra=2'),
    });
    expect(await forwarding()).toBe('0\n');
    expect(await host.run('cat', '/proc/sys/net/ipv4/ip_forward')).toBe('0\n');
    await host.run('sysctl', '-q', '-w', 'net.ipv6.conf.ra0/5.accept_ra=2');
    expect(changed((await setUp(`{ ipv6: '${ULA}' }`))[0])).toHaveLength(6);
    await host.run('ip', 'link', 'delete', 'ra0.5');
    await host.module('await network.undoNetworkSetup();');
  });

  it('is undone whole where its file is gone, and where an earlier version has made the tables', async () => {
    await setUp(`{ ipv6: '${ULA}' }`);
    await host.run('rm', FILE); // also what is left of an undo that was killed
    await host.run(
      'nft',
      'rename',
      'chain',
      'inet',
      'qmp_agent',
      `schema_${SCHEMA_VERSION}`,
      'schema_1',
    );
    const [undone] = await host.module(
      'await network.undoNetworkSetup().then(say, (e) => say(failure(e)));',
    );
    expect(changed(undone)).toContain('net.ipv6.conf.all.forwarding as it was');
    expect([await forwarding(), await policies()]).toEqual(['0\n', '']);
    expect(await host.run('nft', 'list', 'tables')).toBe('');
  });

  it('takes no prefix that is the host’s own network, whose neighbours its policies would shut out', async () => {
    await host.run('ip', 'tuntap', 'add', 'dev', 'lan0', 'mode', 'tap');
    await host.run('ip', 'link', 'set', 'lan0', 'up');
    await host.run('ip', 'address', 'add', 'fd12:3456:789a:7::1/64', 'dev', 'lan0', 'nodad');
    expect(await setUp(`{ ipv6: 'fd12:3456:789a::/48' }`)).toMatchObject([
      {
        code: 'ERR_NETWORK_SETUP',
        message: expect.stringContaining('fd12:3456:789a:7::/64 dev lan0'),
      },
    ]);
    expect([await forwarding(), await policies()]).toEqual(['0\n', '']);
    expect(changed((await setUp(`{ ipv6: '${ULA}' }`))[0])).toHaveLength(6);
    await host.run('ip', 'link', 'delete', 'lan0');
    await host.module('await network.undoNetworkSetup();');
  });

  it('gives no VM another prefix than the one that it has', async () => {
    await setUp(`{ ipv6: '${ULA}' }`);
    const other = `await network.setUpNetwork({ ipv6: 'fd99::/48' }).then(say, (e) => say(failure(e)));`;
    const [refused, refusedDown, moved] = await host.module(`${TAKE}
      const { execFile } = await import('node:child_process');
      await take(1, { ipv6: true });
      await take(2, {});
      ${other}
      await new Promise((resolve) => execFile('ip', ['link', 'set', 'qmpa1', 'down'], resolve));
      ${other}
      await network.sweepTaps('${STATE}', async (id, takeAway) => id.endsWith('1') && takeAway());
      ${other}
      await sweep();`);
    expect(refused).toMatchObject({
      code: 'ERR_NETWORK_SETUP',
      message: expect.stringMatching(/network\.ipv6 cannot become fd99::\/48: .* \(qmpa1\)$/),
    });
    expect(refusedDown).toEqual(refused); // it has lost its address with that, as one has none that is about to go up
    expect(changed(moved)).toEqual([
      expect.stringContaining('fd99::/48'),
      'the same policies for IPv6',
    ]);
    expect(await policies()).toContain('src fd99::/48');
    expect(await policies()).not.toContain('fd12:');
    await host.module('await network.undoNetworkSetup();');
  });
});

describe('a tap', () => {
  const sysctl = (tap: string, name: string) =>
    host.run('cat', `/proc/sys/net/ipv6/conf/${tap}/${name}`);

  it('has two addresses of the prefix and finds out nothing by itself; one without has no IPv6', async () => {
    await setUp(`{ ipv6: '${ULA}' }`);
    const vms = await host.module(`${TAKE}
      say(await take(1, { ipv6: true }));
      say(await take(2, {}));`);
    const v6 = { gatewayAddress: 'fd12:3456:789a::2', guestAddress: 'fd12:3456:789a::3' };
    expect(vms).toEqual([
      expect.objectContaining({ tap: 'qmpa1', v6 }),
      expect.not.objectContaining({ v6: expect.anything() as unknown }),
    ]);
    const addresses = JSON.parse(await host.run('ip', '-json', '-6', 'address')) as {
      ifname?: string;
      addr_info?: { local: string; prefixlen: number; tentative?: boolean }[];
    }[];
    const own = addresses.filter(({ ifname }) => ifname?.startsWith('qmpa'));
    expect(own.map(({ ifname, addr_info: all }) => [ifname, all?.length])).toEqual([['qmpa1', 1]]);
    expect(own[0]?.addr_info).toMatchObject([{ local: v6.gatewayAddress, prefixlen: 127 }]);
    expect(own[0]?.addr_info?.[0]).not.toHaveProperty('tentative');
    expect(await host.run('ip', '-6', 'neighbour', 'show', 'dev', 'qmpa1')).toMatch(
      new RegExp(`^${v6.guestAddress} lladdr ${MAC} PERMANENT`),
    );
    expect(await sysctl('qmpa2', 'disable_ipv6')).toBe('1\n');
    for (const [name, value] of Object.entries({ disable_ipv6: 0, addr_gen_mode: 1, accept_ra: 0 }))
      expect([name, await sysctl('qmpa1', name)]).toEqual([name, `${value}\n`]);
    await host.module(`${TAKE} await sweep();`);
    expect(await host.run('ip', '-6', 'address')).not.toContain('fd12:');
  });
});

describe('where somebody flushes the ruleset', () => {
  const HOST = ['203.0.113.1', '2a00:1::1'] as const;
  const WEB = ['203.0.113.10', '2a00:2::10'] as const;
  const FOREIGN = ['203.0.113.77', '2a00:1::77'] as const;
  const OWN = ['10.210.0.3', 'fd12:3456:789a::3'] as const;
  const PORT = 7_777;

  let box: Sandbox;
  let internet: TestHost;
  let capture: Capture;
  let sender: ChildProcessWithoutNullStreams;
  let listener: ChildProcessWithoutNullStreams;
  let heard = '';
  beforeAll(async () => {
    [box, internet] = [await sandbox(), await TestHost.start()];
    const veth = ['eth0', 'type', 'veth', 'peer', 'name', 'eth0', 'netns', String(internet.pid)];
    await host.run('ip', 'link', 'add', ...veth);
    for (const [side, addresses] of [
      [host, HOST],
      [internet, ['203.0.113.254', '2a00:1::fe', ...WEB]],
    ] as const) {
      for (const address of addresses) {
        const prefix = address.includes(':') ? ['/64', 'nodad'] : ['/24'];
        const [length = '', ...more] = prefix;
        await side.run('ip', 'address', 'add', address + length, 'dev', 'eth0', ...more);
      }
      await side.run('ip', 'link', 'set', 'eth0', 'up');
    }
    await host.run('ip', '-6', 'route', 'add', 'default', 'via', '2a00:1::fe'); // what is on-link is shut
    await setUp(`{ ipv6: '${ULA}' }`);
    await host.module(`
      const { whole } = await network.joinNetwork({ runtimeDir: '${box.dir}/run', vmId: '${VM}', mac: '${MAC}',
        egress: { allowPorts: ['${PORT}/udp'] }, publish: [], ipv6: true, logPath: '${box.dir}/log' });
      await whole;`);
    sender = start('python3', SENDER, 'qmpa1');
    await line(sender);
    listener = start('python3', '-uc', LISTENER, String(PORT));
    await line(listener);
    listener.stdout.on('data', (chunk: Buffer) => (heard += chunk.toString()));
    capture = await Capture.start((argv) => internet.command(argv));
  });
  afterAll(async () => {
    sender.kill('SIGKILL');
    listener.kill('SIGKILL');
    await capture[Symbol.asyncDispose]();
    await internet[Symbol.asyncDispose]();
    await box[Symbol.asyncDispose]();
  });

  const start = (...argv: string[]): ChildProcessWithoutNullStreams => {
    const [file, args] = host.command(argv);
    return spawn(file, args, { stdio: ['pipe', 'pipe', 'pipe'] });
  };
  const line = (child: ChildProcessWithoutNullStreams) => once(child.stdout, 'data');
  const send = async (source: string, destination: string, text: string) => {
    sender.stdin.write(`${MAC} ${source} ${destination} ${PORT} ${text}\n`);
    await line(sender);
  };
  const arrived = (text: string) => heard.includes(text) || capture.holding(text).length > 0;
  /** All ways out, each with a text of its own. @returns those that led somewhere */
  const tryAll = async (round: string): Promise<string[]> => {
    const ways = [0, 1].flatMap((family) =>
      (['own', 'foreign'] as const).flatMap((whose) =>
        (['web', 'host'] as const).map((where) => ({ family, whose, where })),
      ),
    );
    const texts = [];
    for (const { family, whose, where } of ways) {
      const text = `${round}-${whose}-${where}-${family === 0 ? 'ipv4' : 'ipv6'};`;
      const source = (whose === 'own' ? OWN : FOREIGN)[family] ?? '';
      await send(source, (where === 'web' ? WEB : HOST)[family] ?? '', text);
      texts.push(text);
    }
    await delay(500 * SCALE);
    return texts.filter(arrived).map((text) => text.slice(round.length + 1, -1));
  };
  const keepers = async () =>
    (await host.run('nft', 'list', 'tables')).match(/qmp_agent_keep_[0-9a-f]{8}/g) ?? [];
  const pidsOf = async (pattern: RegExp) =>
    (await host.run('ps', '-eo', 'pid,args'))
      .split('\n')
      .filter((text) => pattern.test(text) && text.includes(box.dir))
      .map((text) => Number.parseInt(text, 10));
  const service = () => pidsOf(/^ *\d+ \S*node .*network\/service/);

  it('its own addresses lead nowhere: policies of IPsec know them; other ones do in IPv6', async () => {
    expect(await tryAll('ruled')).toEqual(['own-web-ipv4', 'own-web-ipv6']);
    await host.run('nft', 'flush', 'ruleset');
    expect(await tryAll('flushed')).toEqual(['foreign-web-ipv6', 'foreign-host-ipv6']);
  });

  it('none leads anywhere while there is a network service', async () => {
    await host.module(`
      await network.sweepNetwork('${box.dir}/run', async () => false);
      await network.awaitNames({ runtimeDir: '${box.dir}/run', vmId: '${VM}' });`);
    expect(await keepers()).toHaveLength(1);
    expect(await tryAll('served')).toEqual(['own-web-ipv4', 'own-web-ipv6']);
    await host.run('nft', 'flush', 'ruleset');
    expect(await tryAll('kept')).toEqual([]);
    expect(await host.run('nft', 'list', 'tables')).not.toMatch(/qmp_agent$/m);
  });

  it('what it has for that goes with it, and comes again with the next', async () => {
    const [before] = await keepers();
    const [pid = 0] = await service();
    process.kill(pid, 'SIGKILL');
    await vi.waitFor(async () => expect(await keepers()).not.toContain(before), {
      timeout: 10_000 * SCALE,
    });
    await vi.waitFor(async () => expect(await keepers()).toHaveLength(1), {
      ...{ timeout: 30_000 * SCALE, interval: 200 },
    });
    expect(await tryAll('again')).toEqual([]);
  });

  it('whoever kills its nft has another within seconds; without VMs there is none', async () => {
    const [before] = await keepers();
    const [parent = 0] = await service();
    const nft = (await host.run('pgrep', '-P', String(parent), '-x', 'nft')).trim();
    process.kill(Number(nft), 'SIGKILL');
    await vi.waitFor(
      async () => {
        const now = await keepers();
        expect(now).toHaveLength(1);
        expect(now).not.toContain(before);
      },
      { timeout: 15_000 * SCALE, interval: 200 },
    );
    sender.kill('SIGKILL');
    await host.module(`await network.leaveNetwork('${box.dir}/run', '${VM}');`);
    await vi.waitFor(async () => expect(await keepers()).toEqual([]), {
      ...{ timeout: 15_000 * SCALE, interval: 200 },
    });
    await vi.waitFor(async () => expect(await service()).toEqual([]), {
      ...{ timeout: 30_000 * SCALE, interval: 500 },
    });
  });

  it('holds for a VM that has it and cannot be served, too', async () => {
    const taken = start('python3', '-uc', TAKER, '8099');
    await line(taken);
    const [failed] = await host.module(`
      const { whole } = await network.joinNetwork({ runtimeDir: '${box.dir}/run', vmId: '${VM}', mac: '${MAC}',
        egress: {}, publish: ['127.0.0.1:8099:80'], ipv6: true, logPath: '${box.dir}/log' });
      await whole;
      await network.awaitNames({ runtimeDir: '${box.dir}/run', vmId: '${VM}' }).catch((e) => say(failure(e)));`);
    expect(failed).toMatchObject({ message: expect.stringContaining('cannot serve') });
    const before = await keepers();
    expect(before).toHaveLength(1);
    await delay(5_000 * SCALE); // two looks of the service
    expect(await keepers()).toEqual(before);
    taken.kill('SIGKILL');
    await host.module(`await network.leaveNetwork('${box.dir}/run', '${VM}');`);
  });
});
