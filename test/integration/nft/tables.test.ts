/** The tables as such: many VMs, several processes at once, what is left, what others do to them, and errors. */
import { execFileSync } from 'node:child_process';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import {
  addVm,
  allowAddress,
  baseTable,
  changePolicy,
  DEFAULT_POLICY,
  NftClient,
  removeBase,
  remainsOf,
  removeVm,
  type VmNetwork,
} from '../../../nft/index.ts';
import * as f from './frames.ts';
import { SCHEMA_VERSION } from '../../../nft/names.ts';
import { SITE6, TestNetwork, whyNot } from './network.ts';

const skip = whyNot();
const SITE = '203.0.113.10';

let net: TestNetwork | undefined;
beforeEach((context) => {
  if (skip !== undefined) context.skip(skip);
});
afterEach(() => {
  net?.close();
  net = undefined;
});

async function network(o: { vms?: number } = {}): Promise<TestNetwork> {
  net = await TestNetwork.create(o);
  return net;
}

/** VMs without a guest, on taps that nobody holds. */
function addTaps(net: TestNetwork, first: number, count: number): VmNetwork[] {
  const vms = Array.from({ length: count }, (_, index) => manyVm(first + index));
  const lines = vms.map(({ tap }) => `tuntap add dev ${tap} mode tap`).join('\n');
  const [ip, ...argv] = net.nftCommand.slice(0, -1).concat('ip', '-batch', '-') as [string];
  execFileSync(ip, argv, { input: lines, stdio: ['pipe', 'ignore', 'inherit'] });
  return vms;
}

function manyVm(index: number): VmNetwork {
  const hex = index.toString(16).padStart(4, '0');
  return {
    tap: `many${index}`,
    mac: `02:cc:00:00:${hex.slice(0, 2)}:${hex.slice(2)}`,
    guestAddress: `10.211.${index >> 6}.${(index % 64) * 4 + 2}`,
    gatewayAddress: `10.211.${index >> 6}.${(index % 64) * 4 + 1}`,
    ...(index % 2 === 0
      ? {}
      : { v6: { guestAddress: `fd00:211::${hex}:1`, gatewayAddress: `fd00:211::${hex}:0` } }),
    generation: index,
    policy: {
      ...DEFAULT_POLICY,
      denial: index % 2 === 0 ? 'drop' : 'reject',
      exceptions: index % 3 === 0 ? ['10.9.8.7', 'fd12::/16'] : [],
      published: [{ id: 90, protocol: 'tcp', port: 80 }],
      rules: [
        ...DEFAULT_POLICY.rules,
        {
          id: 50,
          title: 'a name',
          action: 'allow',
          protocol: 'tcp',
          ports: [443],
          destination: { kind: 'dynamic', of: 'example.org' },
        },
        {
          id: 51,
          title: '',
          action: 'deny',
          protocol: 'udp',
          ports: [],
          destination: { kind: 'addresses', cidrs: ['192.0.2.0/24', '2001:db8::/32'] },
        },
      ],
      limits: { uploadBytesPerSecond: 1_000_000, dnsQueriesPerSecond: 5, connections: 9 },
    },
  };
}

const ruleset = (net: TestNetwork) => net.nft('list', 'ruleset');

describe('many VMs', () => {
  test('come and go, and nothing of them is left', async () => {
    const net = await network({ vms: 1 });
    const empty = ruleset(net);
    const vms = addTaps(net, 0, 120);
    await net.client.apply(vms.flatMap(addVm));
    expect(await net.client.taps()).toHaveLength(121);
    const vm = vms[7]!;
    await net.client.applyTimed(
      allowAddress({ tap: vm.tap, ruleId: 50, addresses: [SITE, SITE6], ttlS: 60 }),
    );
    const after = { ...vm, policy: DEFAULT_POLICY };
    await net.client.apply(changePolicy(vm, after));
    vms[7] = { ...vm, generation: 1 };
    await net.client.apply(changePolicy(after, vms[7]));
    // By what was added, by what is found, and both once more.
    const found = await net.client.remains();
    const half = found.filter(({ tap }) => tap.startsWith('many') && Number(tap.slice(4)) >= 60);
    expect(half).toHaveLength(60);
    await net.client.apply(half.flatMap(removeVm));
    await net.client.apply(vms.slice(0, 60).map(remainsOf).flatMap(removeVm));
    expect(ruleset(net)).toBe(empty);
    await net.client.apply(vms.map(remainsOf).flatMap(removeVm));
    expect(ruleset(net)).toBe(empty);
    expect(await net.client.taps()).toEqual(['tvm1']);
  });

  test('whose taps are gone can be removed all the same', async () => {
    const net = await network({ vms: 1 });
    const empty = ruleset(net);
    const [one, two] = addTaps(net, 0, 2) as [VmNetwork, VmNetwork];
    await net.client.apply([one, two].flatMap(addVm));
    for (const { tap } of [one, two]) net.run('host', 'ip', 'link', 'delete', tap);
    await net.client.apply(removeVm(remainsOf(one)));
    const [rest] = (await net.client.remains()).filter(({ tap }) => tap === two.tap);
    await net.client.apply(removeVm(rest!));
    expect(ruleset(net)).toBe(empty);
  });

  test('are added, changed and removed by several processes at once', async () => {
    const net = await network({ vms: 1 });
    const empty = ruleset(net);
    const vms = addTaps(net, 0, 32);
    // A client for each: they have nothing in common but the kernel.
    const lives = [0, 1, 2, 3].map(async (worker) => {
      const client = new NftClient({ command: net.nftCommand });
      for (const vm of vms.slice(worker * 8, worker * 8 + 8)) {
        await client.ensureBase();
        await client.apply(addVm(vm));
        await client.apply(changePolicy(vm, { ...vm, policy: DEFAULT_POLICY }));
        if (vm.generation % 2 === 0) continue;
        await client.apply(removeVm(remainsOf({ ...vm, policy: DEFAULT_POLICY })));
      }
    });
    await Promise.all(lives);
    expect(await net.client.taps()).toHaveLength(17);
    const counters = await net.client.counters({ groups: ['traffic'] });
    expect(counters.size).toBe(17);
    await net.client.apply(vms.map(remainsOf).flatMap(removeVm));
    expect(ruleset(net)).toBe(empty);
  });

  test("leave the others' connections, rules and counters alone", async () => {
    const net = await network();
    net.nft(
      'add table inet other; add chain inet other c { type filter hook forward priority 0; }',
    );
    net.nft('add rule inet other c counter accept');
    const other = net.vms[1]!.peer;
    expect(await other.do('tcp_connect', { id: 'c', to: SITE, port: 443 })).toBe('ok');
    const before = (await net.client.counters()).get('tvm2')!;
    await net.client.apply(removeVm(remainsOf(net.vms[0]!.network)));
    expect(await other.do('say', { id: 'c' })).toBe('echo');
    const after = (await net.client.counters()).get('tvm2')!;
    expect(after.sent.packets).toBeGreaterThan(before.sent.packets);
    await net.client.removeBase();
    await net.client.removeBase();
    expect(net.nft('list', 'tables').trim()).toBe('table inet other');
  });
});

describe('the base', () => {
  test('set up by several at once is there once', async () => {
    const net = await network({ vms: 0 });
    await net.client.apply(removeBase());
    const clients = Array.from({ length: 4 }, () => new NftClient({ command: net.nftCommand }));
    const made = await Promise.all(clients.map((client) => client.ensureBase()));
    // Those that did it at the very same time all say so.
    expect(made).toContain(true);
    expect(ruleset(net).match(/iifname @taps goto from_vm/g)).toHaveLength(1);
  });

  test('of which one table is gone is mended', async () => {
    const net = await network({ vms: 0 });
    const whole = ruleset(net);
    for (const family of ['inet', 'netdev']) {
      net.nft('delete', 'table', family, 'qmp_agent');
      expect(await net.client.hasBase()).toBe(false);
      expect(
        await net.client.ensureBase({
          rates: { deniedPerSecond: 50_000, deniedBurst: 50_000, allowedPerSecond: 50_000 },
        }),
      ).toBe(true);
    }
    const lines = (text: string) => text.split('\n').sort();
    expect(lines(ruleset(net))).toEqual(lines(whole));
  });

  test('of another version is not touched', async () => {
    const net = await network({ vms: 0 });
    net.nft(`rename chain inet qmp_agent schema_${SCHEMA_VERSION} schema_99`);
    await expect(net.client.ensureBase()).rejects.toMatchObject({
      code: 'ERR_NETWORK_RULES',
      reason: 'schema',
    });
  });

  test('can be written anew under traffic', async () => {
    const net = await network({ vms: 1 });
    const { peer } = net.vms[0]!;
    await peer.do('tcp_connect', { id: 'c', to: SITE, port: 443 });
    for (let times = 0; times < 5; times++) {
      await net.client.apply(baseTable({ present: ['inet', 'netdev'] }));
      expect(await peer.do('say', { id: 'c' })).toBe('echo');
      expect(await peer.do('tcp_connect', { to: SITE, port: 25 })).toBe('ECONNREFUSED');
    }
  });
});

describe('taps without their rules', () => {
  const flood = async (net: TestNetwork) => {
    const { network, ends, peer } = net.vms[0]!;
    await net.arrived();
    const o = { source: network.guestAddress, destination: SITE };
    const packet = f.ipv4({ ...o, protocol: 6 }, f.tcp(o, 45_000, 443, f.SYN, 'TOKEN'));
    await peer.do('frame', {
      dev: 'eth0',
      frames: Array<string>(20).fill(f.ethernet(ends, 0x0800, packet)),
    });
    await new Promise((resolve) => setTimeout(resolve, 100));
    return (await net.arrived()).filter((hex) =>
      hex.includes(Buffer.from('TOKEN').toString('hex')),
    );
  };

  test('are shut by their group, from before they have any', async () => {
    const net = await network({ vms: 1 });
    await net.client.apply(removeVm(remainsOf(net.vms[0]!.network)));
    expect(await flood(net)).toEqual([]);
    const [entry] = await net.logs();
    expect(entry).toMatchObject({ verdict: 'deny', cause: 'stray' });
    expect(
      await net.vms[0]!.peer.do('udp', { to: '10.210.0.1', port: 53, timeoutS: 0.5 }),
    ).not.toBe('echo');
  });

  test('are shut when they were renamed', async () => {
    const net = await network({ vms: 1 });
    net.run('host', 'ip', 'link', 'set', 'tvm1', 'down');
    net.run('host', 'ip', 'link', 'set', 'tvm1', 'name', 'other1');
    net.run('host', 'ip', 'link', 'set', 'other1', 'up');
    expect(await flood(net)).toEqual([]);
  });

  test.each([
    'flush ruleset',
    'flush ruleset inet',
    'flush ruleset netdev',
    'flush table inet qmp_agent',
  ])('reach nothing after `nft %s`, where the host asks for our mark', async (line) => {
    const net = await network({ vms: 1 });
    // See docs/network-rules.md: what the host has to have besides the tables.
    for (const dir of ['fwd', 'in']) {
      const selector = ['src', '10.210.0.0/16', 'dst', '0.0.0.0/0', 'dir', dir];
      const mark = ['mark', '0', 'mask', '0xff000000'];
      net.run('host', 'ip', 'xfrm', 'policy', 'add', ...selector, ...mark, 'action', 'block');
    }
    net.run('host', 'sysctl', '-q', '-w', 'net.ipv4.conf.tvm1.rp_filter=1');
    const { peer } = net.vms[0]!;
    const resolve = () => peer.do('udp', { to: '10.210.0.1', port: 53, timeoutS: 1 });
    const ssh = () => peer.do('tcp_connect', { to: '10.210.0.1', port: 22, timeoutS: 1 });
    expect([await resolve(), await ssh()]).toEqual(['echo', 'ECONNREFUSED']); // port 22 has a listener
    expect((await flood(net)).length).toBeGreaterThan(0);
    net.nft(...line.split(' '));
    expect(await flood(net)).toEqual([]);
    expect(await resolve()).toBe('timeout');
    expect(await ssh()).not.toBe('ok');
    const forged = { source: '198.51.100.77', destination: SITE };
    const packet = f.ipv4({ ...forged, protocol: 6 }, f.tcp(forged, 45_000, 443, f.SYN, 'TOKEN'));
    await net.vms[0]!.peer.do('frame', {
      dev: 'eth0',
      frames: [f.ethernet(net.vms[0]!.ends, 0x0800, packet)],
    });
    expect((await net.arrived()).filter((hex) => hex.includes('544f4b454e'))).toEqual([]);
    net.nft('flush', 'ruleset');
    await net.client.ensureBase();
    await net.client.apply(addVm(net.vms[0]!.network));
    expect(await net.vms[0]!.peer.do('tcp_connect', { to: SITE, port: 443 })).toBe('ok');
  });
});

describe('a call of nft', () => {
  test('that is not there, or not allowed, says what to do', async () => {
    const missing = new NftClient({ command: ['no-such-nft'] });
    await expect(missing.taps()).rejects.toMatchObject({
      code: 'ERR_HOST_TOOL',
      hint: 'install it: apt install nftables',
    });
    const net = await network({ vms: 0 });
    const command = [
      ...net.nftCommand.slice(0, -1),
      'setpriv',
      '--reuid=65534',
      '--clear-groups',
      'nft',
    ];
    const unprivileged = new NftClient({ command });
    await expect(unprivileged.ensureBase()).rejects.toMatchObject({
      code: 'ERR_HOST_PERMISSION',
      hint: 'run as root, or with CAP_NET_ADMIN',
    });
  });

  test('of which a part fails changes nothing', async () => {
    const net = await network({ vms: 0 });
    const before = ruleset(net);
    const [vm] = addTaps(net, 0, 1) as [VmNetwork];
    const other = allowAddress({ tap: 'nobody', ruleId: 1, addresses: [SITE], ttlS: 60 });
    await expect(net.client.apply([...addVm(vm), ...other])).rejects.toMatchObject({
      code: 'ERR_NETWORK_RULES',
      reason: 'missing',
    });
    expect(ruleset(net)).toBe(before);
  });

  test('ends with its time, or with its signal', async () => {
    const slow = new NftClient({ command: ['sh', '-c', 'exec sleep 30'] });
    await expect(slow.taps({ timeoutMs: 200 })).rejects.toMatchObject({ code: 'ERR_TIMEOUT' });
    const signal = AbortSignal.timeout(200);
    await expect(slow.taps({ signal })).rejects.toBe(await reasonOf(signal));
    await expect(slow.taps({ signal })).rejects.toBe(signal.reason);
  });
});

async function reasonOf(signal: AbortSignal): Promise<unknown> {
  await new Promise((resolve) => signal.addEventListener('abort', resolve));
  return signal.reason;
}
