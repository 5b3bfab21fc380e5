/** The resolver between guests (sockets of this test) and a real name server (dnsmasq). */
import { Resolver as NodeResolver } from 'node:dns/promises';
import { decode, type OptAnswer } from 'dns-packet';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ConfigError, HostError, NotFoundError } from '../../../src/errors.ts';
import { Resolver } from '../../../src/network/resolver/index.ts';
import {
  ask,
  Bench,
  eventually,
  loopback,
  PORT,
  query,
  startDnsmasq,
  TcpGuest,
  type Answered,
} from './peers.ts';

let upstream: Awaited<ReturnType<typeof startDnsmasq>>;
let options: { upstreams: string[] };

beforeAll(async () => {
  upstream = await startDnsmasq([
    '--host-record=example.org,192.0.2.10,77',
    '--host-record=www.example.org,192.0.2.11,600',
    '--cname=alias.example.org,www.example.org,30',
    '--cname=far.example.org,host.example.net,30',
    '--host-record=host.example.net,198.51.100.7,5000',
    '--host-record=inside.example.org,10.1.2.3,60',
    '--host-record=both.example.org,192.0.2.9,60',
    '--host-record=both.example.org,127.0.0.1,60',
    '--host-record=meta.example.org,169.254.169.254,60',
    '--host-record=dual.example.org,192.0.2.12,2606:4700:0:0::12,60',
    '--cname=six.example.org,dual.example.org,30',
    ...['::1', '::ffff:192.0.2.9', 'fd12::7', 'fe80::1', '64:ff9b::a9fe:a9fe', '2001:db8::7'].map(
      (address, n) => `--host-record=trap${n}.example.org,${address},60`,
    ),
    '--host-record=made-up.example.org,192.0.2.10,64:ff9b::c000:20a,60',
    '--host-record=half.example.org,2606:4700::13,60',
    '--host-record=half.example.org,fd12::13,60',
    ...Array.from({ length: 40 }, (_, n) => `--host-record=many6.example.org,2606:4700::${n + 1}`),
    '--txt-record=example.org,v=spf1 -all',
    `--txt-record=big.example.org,${Array(7).fill('x'.repeat(250)).join(',')}`,
    `--txt-record=huge.example.org,${Array(10).fill('x'.repeat(250)).join(',')}`,
    '--mx-host=example.org,mail.example.org,10',
    '--srv-host=_git._tcp.example.org,git.example.org,9418,1,2',
    '--caa-record=example.org,0,issue,ca.example',
    '--ptr-record=10.2.0.192.in-addr.arpa,example.org',
    ...Array.from({ length: 40 }, (_, n) => `--host-record=many.example.org,192.0.2.${100 + n}`),
    '--local=/example.org/',
    '--local-ttl=120',
  ]);
  options = { upstreams: [upstream.server] };
});
afterAll(() => upstream.stop());

describe('lookups', () => {
  it('are answered to a real client, and their addresses opened before', async () => {
    await using bench = await Bench.create(options);
    const client = new NodeResolver();
    client.setServers([`${bench.address}:${PORT}`]);
    expect(await client.resolve4('WWW.Example.org', { ttl: true })).toEqual([
      { address: '192.0.2.11', ttl: 600 },
    ]);
    expect(bench.opened).toEqual([
      { id: 'vm1', name: 'www.example.org', addresses: ['192.0.2.11'], ttlSeconds: 900 },
    ]);
    expect(await client.resolve4('alias.example.org')).toEqual(['192.0.2.11']);
    expect(await client.resolveTxt('example.org')).toEqual([['v=spf1 -all']]);
    expect(await client.resolveMx('example.org')).toEqual([
      { exchange: 'mail.example.org', priority: 10 },
    ]);
    expect(await client.resolveSrv('_git._tcp.example.org')).toEqual([
      { name: 'git.example.org', port: 9418, priority: 1, weight: 2 },
    ]);
    expect(await client.resolveCaa('example.org')).toMatchObject([{ issue: 'ca.example' }]);
    expect(await client.reverse('192.0.2.10')).toEqual(['example.org']);
    await expect(client.resolve4('nowhere.example.org')).rejects.toThrow(/ENOTFOUND/);
    await expect(client.resolve6('www.example.org')).rejects.toThrow(/ENODATA/);
    expect(bench.events[0]).toMatchObject({
      vmId: 'vm1',
      ...{ name: 'www.example.org', recordType: 'A', verdict: 'answered', rule: 'allow *' },
      ...{ rcode: 'NOERROR', addresses: ['192.0.2.11'], lost: 0 },
    });
    expect(bench.stats).toMatchObject({ queries: 9, answered: 9, pending: 0, malformed: 0 });
  });

  it('of an alias belong to the name that was asked for, by the shortest TTL', async () => {
    await using bench = await Bench.create(options, { allowDomains: ['far.example.org'] });
    const reply = await bench.ask('far.example.org');
    expect(reply.answers).toMatchObject([
      { type: 'CNAME', name: 'far.example.org', ttl: 30, data: 'host.example.net' },
      { type: 'A', name: 'host.example.net', ttl: 30, data: '198.51.100.7' },
    ]);
    expect(bench.opened).toMatchObject([{ name: 'far.example.org', ttlSeconds: 330 }]);
    expect((await bench.ask('host.example.net')).rcode).toBe('REFUSED');
  });

  it('have no longer TTL than a guest may keep', async () => {
    await using bench = await Bench.create({ ...options, maxTtlSeconds: 100, graceSeconds: 0 });
    const reply = await bench.ask('host.example.net');
    expect(reply.answers).toMatchObject([{ ttl: 100 }]);
    expect(bench.opened[0]?.ttlSeconds).toBe(100);
  });

  it('of IPv6 and of service bindings are empty at once, and open nothing', async () => {
    await using bench = await Bench.create(options);
    for (const type of ['AAAA', 'UNKNOWN_64', 'UNKNOWN_65']) {
      const reply = await bench.ask('example.org', type);
      expect(reply).toMatchObject({ rcode: 'NOERROR', answers: [], authorities: [] });
    }
    expect(bench.opened).toEqual([]);
    expect(bench.events.map((event) => event.recordType)).toEqual(['AAAA', 'SVCB', 'HTTPS']);
  });

  it('of IPv6 are answered to whoever has it, and opened, the name’s alone', async () => {
    const policy = { allowDomains: ['six.example.org', '*.example.net', 'www.example.org'] };
    await using bench = await Bench.create(options, policy, { hasIpv6: true });
    const client = new NodeResolver();
    client.setServers([`${bench.address}:${PORT}`]);
    expect(await client.resolve6('six.example.org', { ttl: true })).toEqual([
      { address: '2606:4700::12', ttl: 30 },
    ]);
    expect(await client.resolve4('six.example.org')).toEqual(['192.0.2.12']);
    expect(bench.opened).toEqual([
      { id: 'vm1', name: 'six.example.org', addresses: ['2606:4700::12'], ttlSeconds: 330 },
      { id: 'vm1', name: 'six.example.org', addresses: ['192.0.2.12'], ttlSeconds: 330 },
    ]);
    expect(bench.events[0]).toMatchObject({
      ...{ recordType: 'AAAA', verdict: 'answered', addresses: ['2606:4700::12'] },
    });
    await expect(client.resolve6('dual.example.org')).rejects.toThrow(/EREFUSED/);
    await expect(client.resolve6('www.example.org')).rejects.toThrow(/ENODATA/); // upstream's word
    for (const type of ['UNKNOWN_64', 'UNKNOWN_65'])
      expect((await bench.ask('six.example.org', type)).answers).toEqual([]);
    expect(bench.opened).toHaveLength(2);
  });

  it('of IPv6 are as many as fit, and all of them over TCP', async () => {
    await using bench = await Bench.create(options, {}, { hasIpv6: true });
    const reply = await bench.ask('many6.example.org', 'AAAA', false);
    expect(reply).toMatchObject({ flag_tc: true, answers: [] });
    const guest = new TcpGuest(bench.address);
    guest.send(query('many6.example.org', 'AAAA'));
    await eventually(() => expect(guest.replies).toHaveLength(1));
    guest.socket.destroy();
    const told = guest.replies[0]?.answers?.map((answer) => 'data' in answer && answer.data);
    expect(new Set(told).size).toBe(40);
    expect(new Set(bench.opened.at(-1)?.addresses)).toEqual(new Set(told));
  });

  it('that exceed a UDP packet are truncated, and whole over TCP', async () => {
    await using bench = await Bench.create(options);
    expect(await bench.ask('many.example.org', 'A', false)).toMatchObject({
      flag_tc: true,
      answers: [],
    });
    expect((await bench.ask('many.example.org')).answers).toHaveLength(40);
    // Upstream truncates this one: the resolver has asked again over TCP.
    expect(await bench.ask('big.example.org', 'TXT')).toMatchObject({ flag_tc: true });
    const guest = new TcpGuest(bench.address);
    guest.send(query('big.example.org', 'TXT'), query('many.example.org', 'A', false));
    await eventually(() => expect(guest.replies).toHaveLength(2));
    const lengths = guest.replies.map((reply) => reply.answers?.length).sort();
    expect(lengths).toEqual([1, 40]);
    guest.socket.destroy();
  });
});

describe('what is not allowed', () => {
  const policy = { allowDomains: ['*.example.org'], denyDomains: ['www.example.org'] };

  it('is refused at once, with the reason', async () => {
    await using bench = await Bench.create(options, policy);
    expect((await bench.ask('alias.example.org')).rcode).toBe('NOERROR');
    for (const [name, rule, reason] of [
      ['example.org', 'not-allowed', /not allowed \(--allow-domain\)/],
      ['www.example.org', 'deny www.example.org', /denied/],
    ] as const) {
      const reply = await bench.ask(name);
      expect(reply).toMatchObject({ rcode: 'REFUSED', answers: [] });
      const { options: said } = reply.additionals?.[0] as OptAnswer;
      expect((said[0]?.data as Buffer).toString('utf8', 2)).toMatch(reason);
      expect(bench.events.at(-1)).toMatchObject({
        ...{ name, verdict: 'refused', rcode: 'REFUSED', rule },
      });
    }
    const client = new NodeResolver();
    client.setServers([`${bench.address}:${PORT}`]);
    await expect(client.resolve4('example.org')).rejects.toThrow(/EREFUSED/);
    expect((await bench.ask('alias.example.org', 'UNKNOWN_10')).rcode).toBe('REFUSED');
    expect((await bench.ask('alias.example.org', 'ANY')).rcode).toBe('REFUSED');
    expect(bench.opened).toHaveLength(1);
  });

  it('is met with silence where that is wanted', async () => {
    await using bench = await Bench.create(options, { ...policy, denial: 'drop' });
    const reply = await ask(bench.address, query('example.org'), { timeoutMs: 200 });
    expect(reply).toBeUndefined();
    expect(await ask(bench.address, Buffer.alloc(40), { timeoutMs: 200 })).toBeUndefined();
    expect(bench.stats).toMatchObject({ refused: 1, malformed: 1 });
    expect((await bench.ask('alias.example.org')).rcode).toBe('NOERROR');
  });

  it('changes at once, and a policy that is none leaves the old one', async () => {
    await using bench = await Bench.create(options, { allowDomains: [] });
    expect((await bench.ask('example.org')).rcode).toBe('REFUSED');
    bench.resolver.change('vm1', { allowDomains: ['example.org'] });
    expect((await bench.ask('example.org')).rcode).toBe('NOERROR');
    const change = () => bench.resolver.change('vm1', { allowDomains: ['not a name'] });
    expect(change).toThrow(ConfigError);
    expect((await bench.ask('example.org')).rcode).toBe('NOERROR');
    expect(() => bench.resolver.change('vm2', {})).toThrow(NotFoundError);
  });
});

describe('rebinding', () => {
  it.each([
    ['inside.example.org', '10.0.0.0/8'],
    ['meta.example.org', '169.254.0.0/16'],
    ['both.example.org', '127.0.0.0/8'],
  ])('%s into %s is refused as a whole', async (name, range) => {
    await using bench = await Bench.create(options);
    expect(await bench.ask(name)).toMatchObject({ rcode: 'REFUSED', answers: [] });
    expect(bench.opened).toEqual([]);
    expect(bench.events).toMatchObject([{ verdict: 'rebinding', rule: `never ${range}` }]);
    expect(bench.stats.rebinding).toBe(1);
  });

  it.each([
    ['trap0', '::/96'],
    ['trap1', '::ffff:0:0/96'],
    ['trap2', 'fc00::/7'],
    ['trap3', 'fe80::/10'],
    ['trap4', '64:ff9b::/96'],
    ['trap5', '2001:db8::/32'],
    ['half', 'fc00::/7'],
  ])('%s by IPv6 into %s is refused as a whole', async (name, range) => {
    await using bench = await Bench.create(options, {}, { hasIpv6: true });
    const reply = await bench.ask(`${name}.example.org`, 'AAAA');
    expect(reply).toMatchObject({ rcode: 'REFUSED', answers: [] });
    expect(bench.opened).toEqual([]);
    expect(bench.events).toMatchObject([{ verdict: 'rebinding', rule: `never ${range}` }]);
  });

  it('is none where upstream makes IPv6 addresses up of public ones of IPv4 (DNS64): there are none', async () => {
    await using bench = await Bench.create(options, {}, { hasIpv6: true });
    const reply = await bench.ask('made-up.example.org', 'AAAA');
    expect(reply).toMatchObject({ rcode: 'NOERROR', answers: [] });
    expect((await bench.ask('made-up.example.org', 'A')).answers).toHaveLength(1);
    expect(bench.opened.map(({ addresses }) => addresses)).toEqual([['192.0.2.10']]);
    expect(bench.events.map(({ verdict }) => verdict)).toEqual(['answered', 'answered']);
  });

  it('by IPv6 is none where the range is allowed', async () => {
    const policy = { allowAddresses: ['fd12::/64'] };
    await using bench = await Bench.create(options, policy, { hasIpv6: true });
    expect((await bench.ask('trap2.example.org', 'AAAA')).rcode).toBe('NOERROR');
    expect((await bench.ask('half.example.org', 'AAAA')).answers).toHaveLength(2);
    expect(bench.opened[0]?.addresses).toEqual(['fd12::7']);
    expect((await bench.ask('trap3.example.org', 'AAAA')).rcode).toBe('REFUSED');
  });

  it('is none where the range is allowed; the host’s own addresses can be added', async () => {
    await using bench = await Bench.create(
      { ...options, neverAddresses: ['192.0.2.10'] },
      { allowAddresses: ['10.1.0.0/16'] },
    );
    expect((await bench.ask('inside.example.org')).rcode).toBe('NOERROR');
    expect(bench.opened).toMatchObject([{ addresses: ['10.1.2.3'] }]);
    expect((await bench.ask('example.org')).rcode).toBe('REFUSED');
    expect((await bench.ask('www.example.org')).rcode).toBe('NOERROR');
  });
});

describe('limits', () => {
  it('are told and counted, each by its name', async () => {
    await using bench = await Bench.create(options, {
      limits: { namesPerParentPerMinute: 3, labels: 4, otherQueriesPerMinute: 3 },
    });
    const rcodes = [];
    for (const name of ['a', 'b', 'c', 'd', 'a']) {
      rcodes.push((await bench.ask(`${name}.example.org`)).rcode);
    }
    expect(rcodes).toEqual(['NXDOMAIN', 'NXDOMAIN', 'NXDOMAIN', 'REFUSED', 'NXDOMAIN']);
    await bench.ask('1.2.3.4.5.example.net');
    for (const name of ['huge', 'a', 'a', 'a']) await bench.ask(`${name}.example.net`, 'TXT');
    const limited = bench.events.filter((event) => event.verdict === 'limited');
    expect(limited.map((event) => event.rule)).toEqual([
      'limit namesPerParentPerMinute',
      'limit labels',
      'limit otherQueriesPerMinute',
    ]);
    expect(bench.stats.limited).toBe(3);
  });

  it('bound the size of answers that hold no addresses', async () => {
    await using bench = await Bench.create(options);
    expect((await bench.ask('huge.example.org', 'TXT')).rcode).toBe('REFUSED');
    expect(bench.events).toMatchObject([{ verdict: 'limited', rule: 'limit otherAnswerBytes' }]);
  });

  it('of the rate refuse first, then are silent; events that were left out are counted', async () => {
    await using bench = await Bench.create(options, {
      limits: { queriesPerSecond: 1, queryBurst: 250 },
    });
    const guest = new TcpGuest(bench.address);
    for (let sent = 0; sent < 600; sent += 1) guest.send(query('example.org', 'AAAA'));
    await eventually(() => expect(bench.stats.queries).toBe(600));
    const { answered, limited, dropped, eventsLost } = bench.stats;
    expect(answered).toBeGreaterThanOrEqual(250);
    expect(limited).toBeGreaterThanOrEqual(250);
    expect(answered + limited + dropped).toBe(600);
    expect(dropped).toBeGreaterThan(50);
    expect(bench.events.length + eventsLost).toBe(answered + limited);
    expect(eventsLost).toBeGreaterThan(100);
    await eventually(() => expect(guest.replies).toHaveLength(answered + limited));
    guest.socket.destroy();
  });
});

describe('the hook', () => {
  it('is awaited before the answer leaves', async () => {
    const order: string[] = [];
    await using bench = await Bench.create({
      ...options,
      onAddresses: async () => {
        await new Promise((resolve) => setTimeout(resolve, 50));
        order.push('opened');
      },
    });
    await bench.ask('example.org');
    order.push('answered');
    expect(order).toEqual(['opened', 'answered']);
  });

  it.each([
    ['throws', () => expect.fail('no set')],
    ['rejects', () => Promise.reject(new Error('no set'))],
  ])('that %s makes it fail', async (_, onAddresses) => {
    await using bench = await Bench.create({ ...options, onAddresses });
    expect(await bench.ask('example.org')).toMatchObject({ rcode: 'SERVFAIL', answers: [] });
    expect(bench.events).toMatchObject([{ verdict: 'failed', error: 'no set' }]);
  });

  it('that does not end is told to, and the guest hears of it', async () => {
    let reason: AbortSignal | undefined;
    await using bench = await Bench.create({
      ...options,
      onAddresses: (_client, _answer, signal) => {
        reason = signal;
        return new Promise(() => undefined);
      },
    });
    expect((await bench.ask('example.org')).rcode).toBe('SERVFAIL');
    expect(reason?.aborted).toBe(true);
  });

  it('is called for each client of a question that went up once', async () => {
    await using bench = await Bench.create(options);
    const other = loopback();
    await bench.resolver.add({ id: 'vm2', listenAddress: other, guestAddress: '127.0.0.1' });
    const replies = await Promise.all([
      ...Array.from({ length: 5 }, () => bench.ask('example.org')),
      ask(other, query('example.org')).then((reply) => decode(reply!) as Answered),
    ]);
    expect(replies.map((reply) => reply.answers?.length)).toEqual(Array(6).fill(1));
    expect(bench.opened.map(({ id }) => id).sort()).toEqual([
      ...Array<string>(5).fill('vm1'),
      'vm2',
    ]);
  });
});

describe('clients', () => {
  it('are answered at their own address only', async () => {
    await using bench = await Bench.create(options);
    const from = loopback();
    expect(
      await ask(bench.address, query('example.org'), { from, timeoutMs: 200 }),
    ).toBeUndefined();
    const guest = new TcpGuest(bench.address, from);
    guest.send(query('example.org'));
    await eventually(() => expect(guest.isClosed).toBe(true));
    expect(bench.stats).toMatchObject({ wrongSource: 2, queries: 0 });
    expect(bench.events).toEqual([]);
  });

  it('come and go; nothing listens afterwards', async () => {
    await using bench = await Bench.create(options);
    const guest = new TcpGuest(bench.address);
    await eventually(() => expect(bench.stats.tcpConnections).toBe(1));
    await bench.resolver.remove('vm1');
    await bench.resolver.remove('vm1');
    await eventually(() => expect(guest.isClosed).toBe(true));
    expect(bench.resolver.clients).toEqual([]);
    expect(await ask(bench.address, query('example.org'), { timeoutMs: 100 })).toBeUndefined();
    const again = { id: 'vm1', listenAddress: bench.address, guestAddress: '127.0.0.1' };
    await bench.resolver.add(again);
    expect((await bench.ask('example.org')).rcode).toBe('NOERROR');
    await bench.resolver[Symbol.asyncDispose]();
    await bench.resolver[Symbol.asyncDispose]();
    await expect(bench.resolver.add(again)).rejects.toThrow(/closed/);
  });

  it('that cannot be served leave nothing behind', async () => {
    await using bench = await Bench.create(options);
    const { resolver, address } = bench;
    const spec = { id: 'vm2', listenAddress: loopback(), guestAddress: '127.0.0.1' };
    await expect(resolver.add({ ...spec, id: 'vm1' })).rejects.toThrow(/id: vm1 is served/);
    await expect(resolver.add({ ...spec, listenAddress: address })).rejects.toThrow(ConfigError);
    await expect(resolver.add({ ...spec, listenAddress: '::1' })).rejects.toThrow(/listenAddress/);
    await expect(resolver.add({ ...spec, guestAddress: 'guest' })).rejects.toThrow(/guestAddress/);
    const foreign = resolver.add({ ...spec, listenAddress: '192.0.2.1' });
    await expect(foreign).rejects.toThrow(HostError);
    await expect(foreign).rejects.toMatchObject({ hint: expect.stringContaining('interface') });
    await using other = await Resolver.create({ ...options, port: PORT });
    await expect(other.add({ ...spec, listenAddress: address })).rejects.toThrow(/EADDRINUSE/);
    await resolver.add(spec);
    expect(resolver.clients).toEqual(['vm1', 'vm2']);
  });

  it('are not made with options that cannot be used', async () => {
    await expect(Resolver.create({ upstreams: ['dns.example'] })).rejects.toThrow(/dns\.example/);
    await expect(Resolver.create({ ...options, port: 0 })).rejects.toThrow(/port/);
    await expect(Resolver.create({ ...options, graceSeconds: -1 })).rejects.toThrow(/graceSeconds/);
    await expect(Resolver.create({ resolvConfPath: '/nonexistent' })).rejects.toThrow(HostError);
  });
});
