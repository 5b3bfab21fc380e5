/** Connections over a VM's life: what a change of the policy cuts and what it leaves, bounds, published ports. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import {
  allowAddress,
  DEFAULT_POLICY,
  DEFAULT_RULES,
  ISOLATED_POLICY,
  type NetworkPolicy,
} from '../../../nft/index.ts';
import { makePolicy } from '../../../src/network/policy.ts';
import * as f from './frames.ts';
import { type TestNetwork, whyNot } from './network.ts';
import { causes, rule, useConnections } from './connections.ts';

const skip = whyNot();
const SITE = '203.0.113.10';
const OTHER = '203.0.113.11';
const GUEST = '10.210.0.2';
const HOST = '198.51.100.1';

let net: TestNetwork;
const { guest, reset, connect, say, generation } = useConnections((made) => (net = made), {
  site: SITE,
});

describe('a change of the policy', () => {
  test('cuts what is allowed no more at once, and leaves the rest alone', async () => {
    expect([await connect('web', 443), await connect('ssh', 22)]).toEqual(['ok', 'ok']);
    await net.logs();
    await net.change(0, { rules: DEFAULT_RULES.slice(0, 1) });
    expect(await say('web')).toBe('echo');
    expect(await say('ssh')).toBe('ECONNRESET');
    expect(causes(await net.logs({ waitS: 5 }))).toEqual(['cut']);
    expect(await connect('again', 22)).toBe('ECONNREFUSED');
  });

  test('that denies a part of what a rule allows cuts that part, and leaves the rest under it', async () => {
    const before = makePolicy({});
    await reset(before.rules);
    expect([await connect('one', 443), await connect('other', 443, OTHER)]).toEqual(['ok', 'ok']);
    expect([await say('one'), await say('other')]).toEqual(['echo', 'echo']);
    await net.change(0, makePolicy({ denyCidrs: [OTHER] }, before).rules);
    await net.logs();
    expect([await say('one'), await say('other')]).toEqual(['echo', 'ECONNRESET']);
    expect(causes(await net.logs({ waitS: 5 }))).toEqual(['rule']);
    expect(await say('one')).toBe('echo');
  });

  test('leaves connections that another rule allows now, under that rule', async () => {
    await connect('web', 443);
    await connect('plain', 80);
    await net.change(0, { rules: [rule(21, [443])] });
    expect(await say('web')).toBe('echo');
    expect(await say('plain')).toBe('ECONNRESET');
    const counters = (await net.client.counters({ groups: ['rules'] })).get('tvm1')!;
    expect([...counters.byRule.keys()]).toEqual([21]);
    expect(await say('web')).toBe('echo');
  });

  test('lets the remote end be the first to speak after it', async () => {
    await connect('web', 443);
    await net.change(0, { rules: [rule(22, [443])] });
    expect(await net.up.do('tell', { port: 443, text: 'news' })).toBe('ok');
    expect(await guest().do('receive', { id: 'web' })).toBe('news');
  });

  test('resets the remote end of a connection that was cut', async () => {
    await connect('ssh', 22);
    await net.change(0, { rules: DEFAULT_RULES.slice(0, 1) });
    await net.logs();
    await net.up.do('tell', { port: 22, text: 'news' });
    expect(causes(await net.logs({ waitS: 5 }))).toEqual(['inward']);
    expect(await guest().do('receive', { id: 'ssh', timeoutS: 0.3 })).toBe('timeout');
    expect(await net.up.do('tell', { port: 22, text: 'more' })).not.toBe('ok');
  });

  test('to another generation cuts all, allowed or not', async () => {
    await connect('web', 443);
    expect(await say('web')).toBe('echo');
    await reset(DEFAULT_POLICY);
    expect(await say('web')).toBe('ECONNRESET');
    expect(await connect('new', 443)).toBe('ok');
  });

  test('to isolated cuts all, and DNS', async () => {
    await connect('web', 443);
    expect(await guest().do('udp', { to: '10.210.0.1', port: 53 })).toBe('echo');
    await net.change(0, ISOLATED_POLICY);
    expect(await say('web')).toBe('ECONNRESET');
    expect(await guest().do('udp', { to: '10.210.0.1', port: 53 })).toBe('EHOSTUNREACH');
  });

  test('and back again, many times, while a connection is used', async () => {
    await connect('web', 443);
    const talk = (async () => {
      for (let times = 0; times < 60; times++) expect(await say('web')).toBe('echo');
    })();
    for (let id = 30; id < 40; id++)
      await net.change(0, { rules: [rule(id, [443]), rule(99, [22])] });
    await talk;
  });
});

describe('a dynamic rule', () => {
  const dynamic = rule(41, [443], { destination: { kind: 'dynamic', of: 'example.org' } });
  const allow = (ttlS: number, ...addresses: string[]) =>
    net.client.applyTimed(allowAddress({ tap: 'tvm1', ruleId: 41, addresses, ttlS }));
  const wait = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

  test('opens what it was told, and only as long as that lives', async () => {
    await net.change(0, { rules: [dynamic] });
    expect(await connect('early', 443)).toBe('ECONNREFUSED');
    await allow(2, SITE);
    expect(await connect('web', 443)).toBe('ok');
    expect(await connect('other port', 80)).toBe('ECONNREFUSED');
    expect(await connect('other address', 443, '203.0.113.11')).toBe('ECONNREFUSED');
    await wait(2300);
    expect(await connect('late', 443)).toBe('ECONNREFUSED');
    expect(await say('web')).toBe('echo');
  });

  test('takes a new time for an address that is open', async () => {
    await net.change(0, { rules: [dynamic] });
    await allow(1, SITE);
    await allow(600, SITE, '203.0.113.11');
    const addresses = await net.client.openAddresses({ tap: 'tvm1', ruleId: 41 });
    expect(addresses.map(({ address }) => address).sort()).toEqual([SITE, '203.0.113.11']);
    for (const { expiresS } of addresses) expect(expiresS).toBeGreaterThan(500);
    await net.change(0, { rules: [dynamic, rule(42, [22])] });
    expect(await net.client.openAddresses({ tap: 'tvm1', ruleId: 41 })).toHaveLength(2);
    await reset({ ...DEFAULT_POLICY, rules: [dynamic] });
    expect(await net.client.openAddresses({ tap: 'tvm1', ruleId: 41 })).toEqual([]);
  });

  test('opens no private address, whatever a name resolves to', async () => {
    await net.change(0, { rules: [dynamic] });
    await allow(60, '10.1.2.3', '169.254.169.254', '127.0.0.1');
    expect(await connect('private', 443, '10.1.2.3')).toBe('ECONNREFUSED');
    expect(await connect('metadata', 443, '169.254.169.254')).toBe('ECONNREFUSED');
    expect(causes(await net.logs({ waitS: 5 }))).toEqual(['reserved', 'reserved']);
  });

  test('of a VM that has none is an error that says what is missing', async () => {
    await expect(allow(60, SITE)).rejects.toMatchObject({
      code: 'ERR_NETWORK_RULES',
      reason: 'missing',
    });
  });
});

describe('bounds', () => {
  const limited = (limits: NetworkPolicy['limits']) => net.change(0, { limits });

  test('new connections per second', async () => {
    await limited({ newConnectionsPerSecond: 1, newConnectionsBurst: 3 });
    const results = [];
    for (let index = 0; index < 6; index++) results.push(await connect(`c${index}`, 443));
    expect(results.slice(0, 3)).toEqual(['ok', 'ok', 'ok']);
    expect(results).toContain('ECONNREFUSED');
    expect(new Set(causes(await net.logs({ waitS: 5 })))).toEqual(new Set(['rate']));
    expect(await say('c0')).toBe('echo');
  });

  test('connections at a time', async () => {
    await limited({ connections: 3 });
    const results = [];
    for (let index = 0; index < 5; index++) results.push(await connect(`c${index}`, 443));
    expect(results).toEqual(['ok', 'ok', 'ok', 'ECONNREFUSED', 'ECONNREFUSED']);
    expect(causes(await net.logs({ waitS: 5 }))).toEqual(['connections', 'connections']);
    await limited({});
    expect(await connect('free', 443)).toBe('ok');
  });

  test('bytes per second, and back to none', async () => {
    await limited({ uploadBytesPerSecond: 500_000 });
    await connect('slow', 443);
    const slow = (await guest().do('bulk', { id: 'slow', seconds: 1 })) as number;
    await limited({});
    await connect('fast', 443);
    const fast = (await guest().do('bulk', { id: 'fast', seconds: 0.5 })) as number;
    // What is in the buffers of both ends counts as sent.
    expect(fast).toBeGreaterThan(5 * slow);
    const counters = (await net.client.counters()).get('tvm1')!;
    expect(counters.deniedByCause.get('upload')?.packets).toBeGreaterThan(0);
    expect(counters.sent.bytes).toBeGreaterThan(fast / 2);
    expect(counters.received.packets).toBeGreaterThan(0);
  });

  test('bandwidth: a TCP flow gets what was asked for, with the world and with the host', async () => {
    const [up, down] = [2_000_000, 1_000_000];
    await limited({ uploadBytesPerSecond: up, downloadBytesPerSecond: down });
    await net.up.do('flow_listen', { port: 5001 });
    await guest().do('flow_listen', { port: 5001 });
    await net.change(0, {
      rules: [...net.vms[0]!.network.policy.rules, rule(90, [5001])],
    });
    const rates: number[] = [];
    for (const [from, receiver, to] of [
      [guest(), { down: guest(), up: net.up }, SITE],
      [net.host, { down: net.host, up: guest() }, GUEST],
    ] as const) {
      for (const way of ['up', 'down'] as const) {
        await from.do('flow', { id: 'flow', to, port: 5001, way });
        const id = way === 'up' ? 'served' : 'flow';
        await receiver[way].do('flowed', { id, seconds: 1.5 }); // what its burst lets through
        const rate = (await receiver[way].do('flowed', { id, seconds: 3 })) as number;
        // What the host is sent is the VM's upload.
        rates.push(rate / ((way === 'up') === (from === guest()) ? up : down));
        await from.do('close', { id: 'flow' });
      }
    }
    expect(rates).toHaveLength(4);
    for (const rate of rates) expect(rate, rates.join(', ')).toBeGreaterThan(0.8);
    for (const rate of rates) expect(rate, rates.join(', ')).toBeLessThan(1.2);
    await limited({});
  });

  test('DNS queries per second', async () => {
    await limited({ dnsQueriesPerSecond: 10 });
    const ask = () => guest().do('udp_many', { to: '10.210.0.1', port: 53, count: 60 });
    const few = (await ask()) as number;
    expect(few).toBeGreaterThanOrEqual(20);
    expect(few).toBeLessThan(40);
    expect(causes(await net.logs({ waitS: 5 }))).toContain('dns');
    await limited({});
    expect(await ask()).toBe(60);
  });

  test('logged lines, and the rest is counted', async () => {
    const { baseTable } = await import('../../../nft/index.ts');
    const rates = { deniedPerSecond: 1, deniedBurst: 5 };
    const before = (await net.client.counters()).get('tvm1')!;
    await net.client.apply(baseTable({ ...rates, present: ['inet', 'netdev'] }));
    // A budget that is remembered keeps its size; this VM begins a new one.
    net.nft('flush', 'set', 'inet', 'qmp_agent', 'logq');
    await guest().do('udp_many', { to: SITE, port: 123, count: 40 });
    const after = (await net.client.counters()).get('tvm1')!;
    const denied = after.denied.packets - before.denied.packets;
    const logged = after.logged.packets - before.logged.packets;
    expect(denied).toBeGreaterThanOrEqual(20);
    expect(logged).toBeLessThan(10);
    expect(await net.logs()).toHaveLength(logged);
    const generous = { deniedPerSecond: 50_000, deniedBurst: 50_000, allowedPerSecond: 50_000 };
    await net.client.apply(baseTable({ ...generous, present: ['inet', 'netdev'] }));
    net.nft('flush', 'set', 'inet', 'qmp_agent', 'logq');
  });
});

describe('inwards', () => {
  const published = [{ id: 60, protocol: 'tcp', port: 80 }] as const;
  beforeAll(() => {
    if (skip !== undefined) return;
    // What publishes ports on a host: docker's way.
    net.nft(
      'add table ip publish; add chain ip publish pre { type nat hook prerouting priority dstnat; }',
    );
    net.nft(`add rule ip publish pre ip daddr ${HOST} tcp dport 8000 dnat to ${GUEST}:80`);
    net.nft(`add rule ip publish pre ip daddr ${HOST} tcp dport 8001 dnat to ${GUEST}:8080`);
    net.nft(
      `add rule ip publish pre ip daddr ${SITE} tcp dport 443 iifname tvm2 dnat to 10.1.2.3:443`,
    );
    net.run('up', 'ip', 'route', 'add', '10.210.0.0/24', 'via', HOST);
  });
  afterAll(() => {
    if (skip !== undefined) return;
    net.nft('delete', 'table', 'ip', 'publish');
    net.run('up', 'ip', 'route', 'delete', '10.210.0.0/24');
  });
  const fromOutside = (port: number, id?: string, to = HOST) =>
    net.up.do('tcp_connect', { to, port, ...(id === undefined ? { timeoutS: 0.3 } : { id }) });

  test('nothing new, by whatever way', async () => {
    expect(await fromOutside(8000)).toBe('timeout');
    expect(await fromOutside(80, undefined, GUEST)).toBe('timeout');
    expect(await net.up.do('udp', { to: GUEST, port: 80, timeoutS: 0.3 })).toBe('timeout');
    expect(await net.up.do('ping', { to: GUEST, timeoutS: 0.3 })).toBe('timeout');
    expect(new Set(causes(await net.logs({ waitS: 5 })))).toEqual(new Set(['inward']));
  });

  test('a published port, where the host redirects to it', async () => {
    await net.change(0, { published });
    expect(await fromOutside(8000, 'in')).toBe('ok');
    expect(await net.logs({ waitS: 5 })).toEqual([{ verdict: 'allow', ruleId: 60, tap: 'tvm1' }]);
    expect(await net.up.do('say', { id: 'in' })).toBe('echo');
    expect(await fromOutside(8001)).toBe('timeout');
    expect(await fromOutside(80, undefined, GUEST)).toBe('timeout');
    await net.change(0, { published: [] });
    expect(await net.up.do('say', { id: 'in' })).toBe('ECONNRESET');
    await net.up.do('close', { id: 'in' });
  });

  test("another VM's published port is none of a VM's business", async () => {
    await net.change(0, { published });
    const other = net.vms[1]!.peer;
    expect(await other.do('tcp_connect', { to: HOST, port: 8000 })).toBe('ECONNREFUSED');
    expect(causes(await net.logs({ waitS: 5 }))).toEqual(['vm']);
  });

  test('an allowed address that the host redirects elsewhere', async () => {
    const other = net.vms[1]!.peer;
    expect(await other.do('tcp_connect', { to: SITE, port: 443 })).toBe('ECONNREFUSED');
    expect(causes(await net.logs({ waitS: 5 }))).toEqual(['dnat']);
  });

  test('the host itself may connect, and gets its answers', async () => {
    expect(await net.host.do('tcp_connect', { to: GUEST, port: 80 })).toBe('ok');
    expect(await net.host.do('udp', { to: GUEST, port: 80 })).toBe('echo');
    // From a closed port: the guest's ICMP error belongs to the host's own packet.
    expect(await net.host.do('udp', { to: GUEST, port: 81 })).toBe('ECONNREFUSED');
    expect(causes(await net.logs())).toEqual([]);
  });
});

describe("errors about somebody else's connection", () => {
  const ends = { from: '02:bb:00:00:00:01', to: '02:aa:00:00:00:01' };
  const send = (packet: Buffer) =>
    guest().do('frame', { dev: 'eth0', frames: [f.ethernet(ends, 0x0800, packet)] });
  const error = (destination: string, quoted: Buffer) =>
    f.ipv4({ source: GUEST, destination, protocol: 1 }, f.fragmentationNeeded(quoted));

  /** A packet of the remote end, on a new connection of the VM's own from this port. */
  const answerToOwn = async (port: number): Promise<Buffer> => {
    await connect('mine', 443, SITE, [GUEST, port]);
    await net.logs();
    await net.arrived();
    const reply = { source: SITE, destination: GUEST };
    return f.ipv4({ ...reply, protocol: 6 }, f.tcp(reply, 443, port, f.ACK));
  };

  test("another VM's", async () => {
    // Of the same generation, and so with the same mark: it is the address that tells them apart.
    await net.change(1, DEFAULT_POLICY, generation());
    const other = net.vms[1]!.peer;
    const from = ['10.210.0.6', 50_001];
    expect(await other.do('tcp_connect', { id: 'v2', to: '203.0.113.11', port: 443, from })).toBe(
      'ok',
    );
    await net.logs();
    await net.arrived();
    const reply = { source: '203.0.113.11', destination: '10.210.0.6' };
    const quoted = f.ipv4({ ...reply, protocol: 6 }, f.tcp(reply, 443, 50_001, f.ACK));
    await send(error('203.0.113.11', quoted));
    expect(causes(await net.logs({ waitS: 5 }))).toEqual(['related']);
    expect(await net.arrived()).toEqual([]);
    await other.do('close', { id: 'v2' });
  });

  test("the host's", async () => {
    const from = [HOST, 50_002];
    await net.host.do('tcp_connect', { id: 'own', to: '198.51.100.2', port: 443, from });
    await net.logs();
    const sent = { source: HOST, destination: '198.51.100.2' };
    const quoted = f.ipv4({ ...sent, protocol: 6 }, f.tcp(sent, 50_002, 443, f.ACK));
    await send(error(HOST, quoted));
    expect(causes(await net.logs({ waitS: 5 }))).toEqual(['related']);
    await net.host.do('close', { id: 'own' });
  });

  test("a redirect, about the VM's own", async () => {
    const quoted = await answerToOwn(50_004);
    const redirect = f.icmp(
      5,
      1,
      Buffer.concat([Buffer.from([10, 1, 2, 3]), quoted.subarray(0, 28)]),
    );
    await send(f.ipv4({ source: GUEST, destination: SITE, protocol: 1 }, redirect));
    expect(causes(await net.logs({ waitS: 5 }))).toEqual(['related']);
    expect(await net.arrived()).toEqual([]);
  });

  test("the VM's own gets through", async () => {
    const quoted = await answerToOwn(50_003);
    await send(error(SITE, quoted));
    // The protocol is the tenth byte of the IP header.
    const isIcmp = (hex: string) => hex.slice(46, 48) === '01';
    await expect.poll(async () => (await net.arrived()).some(isIcmp)).toBe(true);
    expect(causes(await net.logs())).toEqual([]);
  });
});
