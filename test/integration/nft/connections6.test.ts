/** Connections of IPv6 over a VM's life: cuts, names, bounds that both families share; and from outside. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import {
  allowAddress,
  DEFAULT_POLICY,
  DEFAULT_RULES,
  ISOLATED_POLICY,
  type NetworkPolicy,
} from '../../../nft/index.ts';
import { HOST6, OTHER_SITE6, SITE6, type TestNetwork, whyNot } from './network.ts';
import { causes, rule, useConnections } from './connections.ts';

const skip = whyNot();
const SITE4 = '203.0.113.10';
const GUEST = 'fd00:210::1';
const GATEWAY = 'fd00:210::';
const OTHER_VM = 'fd00:210::3';

let net: TestNetwork;
const { guest, reset, connect, say } = useConnections((made) => (net = made), {
  site: SITE6,
  vms6: 2,
});

describe('a change of the policy', () => {
  test('cuts what is allowed no more at once, by both families, and leaves the rest alone', async () => {
    expect([await connect('web', 443), await connect('ssh', 22)]).toEqual(['ok', 'ok']);
    expect(await connect('ssh4', 22, SITE4)).toBe('ok');
    await net.logs();
    await net.change(0, { rules: DEFAULT_RULES.slice(0, 1) });
    expect(await say('web')).toBe('echo');
    expect(await say('ssh')).toBe('ECONNRESET');
    expect(await say('ssh4')).toBe('ECONNRESET');
    expect(causes(await net.logs({ waitS: 5 }))).toEqual(['cut', 'cut']);
    expect(await connect('again', 22)).toBe('ECONNREFUSED');
  });

  test('to one family cuts the other', async () => {
    expect([await connect('six', 443), await connect('four', 443, SITE4)]).toEqual(['ok', 'ok']);
    const destination = { kind: 'addresses', cidrs: ['::/0'] } as const;
    await net.change(0, { rules: [rule(20, [443], { destination })] });
    expect([await say('six'), await say('four')]).toEqual(['echo', 'ECONNRESET']);
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

  test('that takes an exception away keeps the remote end out', async () => {
    const destination = { kind: 'addresses', cidrs: ['fd12:3456::1'] } as const;
    const rules = [rule(23, [443], { destination })];
    await net.change(0, { rules, exceptions: ['fd12:3456::/64'] });
    expect(await connect('private', 443, 'fd12:3456::1')).toBe('ok');
    expect(await say('private')).toBe('echo');
    await net.change(0, { rules: [rule(24, [443], { destination })], exceptions: [] });
    await net.logs();
    await net.up.do('tell', { port: 443, text: 'news' });
    expect(causes(await net.logs({ waitS: 5 }))).toEqual(['inward']);
    expect(await guest().do('receive', { id: 'private', timeoutS: 0.3 })).toBe('timeout');
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

  test('to isolated cuts all, and ping to the gateway', async () => {
    await connect('web', 443);
    expect(await guest().do('ping', { to: GATEWAY })).toBe('echo');
    await net.change(0, ISOLATED_POLICY);
    expect(await say('web')).toBe('ECONNRESET');
    expect(await guest().do('ping', { to: GATEWAY })).toBe('unreachable 1');
  });
});

describe('a dynamic rule', () => {
  const dynamic = rule(41, [443], { destination: { kind: 'dynamic', of: 'example.org' } });
  const allow = (ttlS: number, ...addresses: string[]) =>
    net.client.applyTimed(allowAddress({ tap: 'tvm1', ruleId: 41, addresses, ttlS }));
  const wait = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

  test('opens what it was told, of each family, and only as long as that lives', async () => {
    await net.change(0, { rules: [dynamic] });
    expect(await connect('early', 443)).toBe('ECONNREFUSED');
    await allow(2, SITE6);
    expect(await connect('web', 443)).toBe('ok');
    expect(await connect('the other family', 443, SITE4)).toBe('ECONNREFUSED');
    expect(await connect('other port', 80)).toBe('ECONNREFUSED');
    expect(await connect('other address', 443, OTHER_SITE6)).toBe('ECONNREFUSED');
    await allow(60, SITE4, OTHER_SITE6);
    expect(await connect('four', 443, SITE4)).toBe('ok');
    expect(await connect('six', 443, OTHER_SITE6)).toBe('ok');
    await wait(2300);
    expect(await connect('late', 443)).toBe('ECONNREFUSED');
    expect(await say('web')).toBe('echo');
  });

  test('takes a new time for an address that is open, and loses all with its generation', async () => {
    await net.change(0, { rules: [dynamic] });
    await allow(1, SITE6);
    await allow(600, SITE6, SITE4);
    const addresses = await net.client.openAddresses({ tap: 'tvm1', ruleId: 41 });
    expect(addresses.map(({ address }) => address).sort()).toEqual([SITE4, SITE6]);
    for (const { expiresS } of addresses) expect(expiresS).toBeGreaterThan(500);
    await reset({ ...DEFAULT_POLICY, rules: [dynamic] });
    expect(await net.client.openAddresses({ tap: 'tvm1', ruleId: 41 })).toEqual([]);
    await net.change(0, { rules: [] });
    await expect(allow(60, SITE6)).rejects.toMatchObject({ reason: 'missing' });
  });

  test('opens no private address, whatever a name resolves to', async () => {
    await net.change(0, { rules: [dynamic] });
    await allow(
      60,
      'fd12:3456::1',
      'fd00:ec2::254',
      '::1',
      '64:ff9b::a9fe:a9fe',
      OTHER_VM,
      GATEWAY,
    );
    expect(await connect('private', 443, 'fd12:3456::1')).toBe('ECONNREFUSED');
    expect(await connect('metadata', 443, 'fd00:ec2::254')).toBe('ECONNREFUSED');
    expect(await connect('NAT64', 443, '64:ff9b::a9fe:a9fe')).toBe('ECONNREFUSED');
    expect(await connect('VM', 443, OTHER_VM)).toBe('ECONNREFUSED');
    expect(await connect('host', 443, GATEWAY)).toBe('ECONNREFUSED');
    const expected = ['reserved', 'reserved', 'reserved', 'vm', 'host'];
    expect(causes(await net.logs({ waitS: 5 }))).toEqual(expected);
  });
});

describe('bounds', () => {
  const limited = (limits: NetworkPolicy['limits']) => net.change(0, { limits });

  test('new connections per second are of both families', async () => {
    await limited({ newConnectionsPerSecond: 1, newConnectionsBurst: 4 });
    const results = [];
    for (let index = 0; index < 8; index++) {
      results.push(await connect(`c${index}`, 443, index % 2 === 0 ? SITE6 : SITE4));
    }
    expect(results.slice(0, 4)).toEqual(['ok', 'ok', 'ok', 'ok']);
    expect(results).toContain('ECONNREFUSED');
    expect(new Set(causes(await net.logs({ waitS: 5 })))).toEqual(new Set(['rate']));
    expect(await say('c0')).toBe('echo');
  });

  test('connections at a time are of both families', async () => {
    await limited({ connections: 3 });
    const to = [SITE6, SITE4, SITE6, SITE4, SITE6];
    const results = [];
    for (const [index, site] of to.entries()) results.push(await connect(`c${index}`, 443, site));
    expect(results).toEqual(['ok', 'ok', 'ok', 'ECONNREFUSED', 'ECONNREFUSED']);
    expect(causes(await net.logs({ waitS: 5 }))).toEqual(['connections', 'connections']);
  });

  test('bytes per second, counted as all', async () => {
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
  });

  test('pings to the gateway', async () => {
    const results = new Set<unknown>();
    for (let seq = 0; seq < 60; seq++) {
      results.add(await guest().do('ping', { to: GATEWAY, seq, timeoutS: 0.2 }));
    }
    expect(results).toContain('echo');
    expect(results).toContain('unreachable 1');
    expect(new Set(causes(await net.logs({ waitS: 5 })))).toEqual(new Set(['rate']));
  });
});

describe('from outside', () => {
  beforeAll(() => {
    if (skip !== undefined) return;
    net.nft(
      'add table ip6 publish; add chain ip6 publish pre { type nat hook prerouting priority dstnat; }',
    );
    net.nft(`add rule ip6 publish pre ip6 daddr ${HOST6} tcp dport 8000 dnat to [${GUEST}]:80`);
    net.nft(
      `add rule ip6 publish pre ip6 daddr ${SITE6} tcp dport 443 iifname tvm2 dnat to [fd12:3456::1]:443`,
    );
    net.run('up', 'ip', '-6', 'route', 'add', 'fd00:210::/64', 'via', HOST6);
  });
  afterAll(() => {
    if (skip !== undefined) return;
    net.nft('delete', 'table', 'ip6', 'publish');
    net.run('up', 'ip', '-6', 'route', 'delete', 'fd00:210::/64');
  });

  test('nothing new, by whatever way', async () => {
    const o = { timeoutS: 0.3 };
    expect(await net.up.do('tcp_connect', { to: HOST6, port: 8000, ...o })).toBe('timeout');
    expect(await net.up.do('tcp_connect', { to: GUEST, port: 80, ...o })).toBe('timeout');
    expect(await net.up.do('udp', { to: GUEST, port: 80, ...o })).toBe('timeout');
    expect(await net.up.do('ping', { to: GUEST, ...o })).toBe('timeout');
    expect(new Set(causes(await net.logs({ waitS: 5 })))).toEqual(new Set(['inward']));
  });

  test('no published port either: those are of IPv4', async () => {
    await net.change(0, { published: [{ id: 60, protocol: 'tcp', port: 80 }] });
    expect(await net.up.do('tcp_connect', { to: HOST6, port: 8000, timeoutS: 0.3 })).toBe(
      'timeout',
    );
    expect(new Set(causes(await net.logs({ waitS: 5 })))).toEqual(new Set(['inward']));
  });

  test("another VM's port that the host redirects to is none of a VM's business", async () => {
    const other = net.vms[1]!.peer;
    expect(await other.do('tcp_connect', { to: HOST6, port: 8000 })).toBe('ECONNREFUSED');
    expect(causes(await net.logs({ waitS: 5 }))).toEqual(['vm']);
  });

  test('an allowed address that the host redirects elsewhere', async () => {
    const other = net.vms[1]!.peer;
    expect(await other.do('tcp_connect', { to: SITE6, port: 443 })).toBe('ECONNREFUSED');
    expect(causes(await net.logs({ waitS: 5 }))).toEqual(['dnat']);
  });

  test('the host itself may connect, and gets its answers', async () => {
    expect(await net.host.do('tcp_connect', { to: GUEST, port: 80 })).toBe('ok');
    expect(await net.host.do('udp', { to: GUEST, port: 80 })).toBe('echo');
    expect(await net.host.do('ping', { to: GUEST })).toBe('echo');
    // From a closed port: the guest's ICMPv6 error belongs to the host's own packet.
    expect(await net.host.do('udp', { to: GUEST, port: 81 })).toBe('ECONNREFUSED');
    expect(causes(await net.logs())).toEqual([]);
  });

  test('the VM is seen by the address of the host', async () => {
    await connect('web', 443, SITE6, [GUEST, 50_010]);
    const line = 'ss -Hnt6 state established "( sport = :443 )"';
    expect(await net.up.do('run', { line })).toMatch(/\[3ffe:ffff:0:1::1\]:\d+\s*$/m);
  });
});
