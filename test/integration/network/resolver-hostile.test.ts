/** Servers upstream that fail or lie, and guests that mean harm. Scripted: no real server does this. */
import { randomBytes, randomInt } from 'node:crypto';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { decode, encode, type Answer } from 'dns-packet';
import { afterEach, describe, expect, it } from 'vitest';
import { TcpListener } from '../../../src/network/resolver/tcp-listener.ts';
import { Client } from '../../../src/network/resolver/client.ts';
import { EventStream } from '../../../src/events.ts';
import { PendingGate } from '../../../src/network/resolver/pending.ts';
import { ServerList } from '../../../src/network/resolver/servers.ts';
import { Upstream } from '../../../src/network/resolver/upstream.ts';
import {
  ask,
  Bench,
  eventually,
  framed,
  loopback,
  PORT,
  query,
  startScripted,
  TcpGuest,
  type Answered,
} from './peers.ts';

const stops: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const stop of stops.splice(0)) await stop();
});

type Script = Parameters<typeof startScripted>;
async function upstream(...script: Script): Promise<string> {
  const peer = await startScripted(...script);
  stops.push(() => peer.stop());
  return peer.server;
}

interface Forgery {
  id?: number;
  name?: string;
  address?: string;
  flags?: number;
}

/** The answer to a query, with what is to be wrong about it. */
function answerTo(
  packet: Buffer,
  { id, name, address = '192.0.2.1', flags = 0x0180 }: Forgery = {},
) {
  const asked = decode(packet);
  const question = { ...asked.questions![0]!, ...(name === undefined ? {} : { name }) };
  const answers: Answer[] = [{ type: 'A', name: question.name, ttl: 60, data: address }];
  const isError = (flags & 0xf) !== 0 || (flags & 0x0200) !== 0;
  return encode({
    type: 'response',
    id: id ?? asked.id!,
    flags,
    questions: [question],
    answers: isError ? [] : answers,
  });
}

const silent = () => upstream(() => undefined);
const honest = () => upstream((packet, reply) => reply(answerTo(packet)));
const failing = (flags: number) => upstream((packet, reply) => reply(answerTo(packet, { flags })));

describe('upstream', () => {
  it('that is silent or gone gives way to the next, which is asked first from then on', async () => {
    const gone = `${loopback()}:${PORT}`;
    await using bench = await Bench.create({ upstreams: [gone, await silent(), await honest()] });
    const startedAt = performance.now();
    expect(await bench.ask('a.example')).toMatchObject({ rcode: 'NOERROR' });
    expect(performance.now() - startedAt).toBeGreaterThan(1_000);
    const again = performance.now();
    expect(await bench.ask('b.example')).toMatchObject({ rcode: 'NOERROR' });
    expect(performance.now() - again).toBeLessThan(1_000);
  });

  it('that fails altogether is told before the guest loses patience', async () => {
    await using bench = await Bench.create({ upstreams: [await silent()] });
    const startedAt = performance.now();
    const replies = await Promise.all([bench.ask('a.example'), bench.ask('b.example', 'TXT')]);
    expect(replies.map((reply) => reply.rcode)).toEqual(['SERVFAIL', 'SERVFAIL']);
    expect(performance.now() - startedAt).toBeLessThan(5_000);
    expect(bench.events[0]).toMatchObject({
      verdict: 'failed',
      error: expect.stringMatching(/no answer/),
    });
    expect(bench.stats).toMatchObject({ failed: 2, pending: 0 });
  });

  it.each([
    ['SERVFAIL', 0x0182],
    ['REFUSED', 0x0185],
  ])('that says %s gives way, too; if all do, the guest gets SERVFAIL', async (_, flags) => {
    const bad = await failing(flags);
    await using bench = await Bench.create({ upstreams: [bad, await honest()] });
    expect(await bench.ask('a.example')).toMatchObject({ rcode: 'NOERROR' });
    await using worse = await Bench.create({ upstreams: [bad] });
    expect(await worse.ask('a.example')).toMatchObject({ rcode: 'SERVFAIL' });
  });

  it('from before EDNS is asked without', async () => {
    const old = await upstream((packet, reply) => {
      const hasEdns = (decode(packet).additionals ?? []).length > 0;
      reply(answerTo(packet, hasEdns ? { flags: 0x0181 } : {}));
    });
    await using bench = await Bench.create({ upstreams: [old] });
    expect(await bench.ask('a.example')).toMatchObject({ rcode: 'NOERROR' });
  });

  it('gets a fresh port and id each time, and nothing of the guest’s case', async () => {
    const seen: { port: number; id: number; name: string }[] = [];
    const server = await upstream((packet, reply, from) => {
      const { id, questions } = decode(packet);
      seen.push({ port: from.port, id: id!, name: questions![0]!.name });
      reply(answerTo(packet));
    });
    await using bench = await Bench.create({ upstreams: [server] });
    for (let round = 0; round < 20; round += 1) await bench.ask('CaSe.eXample');
    expect(new Set(seen.map(({ port }) => port)).size).toBeGreaterThan(15);
    expect(new Set(seen.map(({ id }) => id)).size).toBeGreaterThan(15);
    expect(new Set(seen.map(({ name }) => name))).toEqual(new Set(['case.example']));
  });

  it('is not believed by another id, name or sender', async () => {
    const other = createSocket('udp4');
    other.bind(PORT, loopback());
    await once(other, 'listening');
    stops.push(() => new Promise((resolve) => other.close(() => resolve())));
    const liar = await upstream((packet, reply) => {
      const { id } = decode(packet);
      reply(answerTo(packet, { id: id! ^ 1, address: '192.0.2.66' }));
      reply(answerTo(packet, { name: 'b.example', address: '192.0.2.66' }));
      reply(answerTo(packet, { address: '192.0.2.66' }), other);
      reply(packet); // its own query
      reply(Buffer.from('no DNS'));
      setTimeout(() => reply(answerTo(packet)), 50);
    });
    await using bench = await Bench.create({ upstreams: [liar] });
    expect((await bench.ask('a.example')).answers).toMatchObject([{ data: '192.0.2.1' }]);
    expect(bench.resolver.foreignReplies).toBe(4);
  });

  it('is asked over TCP where somebody guesses at ids', async () => {
    const guessed = await upstream(
      (packet, reply) => {
        const { id } = decode(packet);
        for (let step = 1; step <= 20; step += 1) {
          reply(answerTo(packet, { id: (id! + step) & 0xffff, address: '192.0.2.66' }));
        }
      },
      (socket) => socket.on('data', (data) => socket.write(framed(answerTo(data.subarray(2))))),
    );
    await using bench = await Bench.create({ upstreams: [guessed] });
    expect((await bench.ask('a.example')).answers).toMatchObject([{ data: '192.0.2.1' }]);
  });

  it.each<[string, NonNullable<Script[1]>]>([
    ['closes', (socket) => socket.destroy()],
    ['sends too much', (socket) => socket.write(Buffer.from([0xff, 0xff]))],
    ['answers something else', (socket) => socket.write(framed(Buffer.alloc(40)))],
  ])('that %s over TCP has failed', async (_, onTcp) => {
    const server = await upstream(
      (packet, reply) => reply(answerTo(packet, { flags: 0x0380 })),
      onTcp,
    );
    await using bench = await Bench.create({ upstreams: [server] });
    expect(await bench.ask('a.example')).toMatchObject({ rcode: 'SERVFAIL' });
  });

  it('that sends garbage has failed, and harms nobody', async () => {
    const server = await upstream((packet, reply) => {
      const good = answerTo(packet);
      reply(Buffer.concat([good.subarray(0, good.length - 16), randomBytes(16)]));
    });
    await using bench = await Bench.create({ upstreams: [server] });
    for (let round = 0; round < 30; round += 1) await bench.ask('a.example');
    expect(bench.opened.filter(({ addresses }) => addresses.includes('192.0.2.1'))).toEqual([]);
  });

  it('is that of resolv.conf, port included', async () => {
    const dir = await mkdtemp(join(tmpdir(), 'qmp-agent-resolv-'));
    stops.push(() => rm(dir, { recursive: true }));
    const resolvConfPath = join(dir, 'resolv.conf');
    await writeFile(resolvConfPath, `search lan\nnameserver ${await honest()}\n`);
    await using bench = await Bench.create({ resolvConfPath });
    expect(await bench.ask('a.example')).toMatchObject({ rcode: 'NOERROR' });
  });

  it('is not opened for a guest whose policy changed, or who left, meanwhile', async () => {
    const slow = await upstream((packet, reply) => setTimeout(() => reply(answerTo(packet)), 150));
    await using bench = await Bench.create({ upstreams: [slow] });
    const asked = bench.ask('a.example');
    await eventually(() => expect(bench.stats.pending).toBe(1));
    bench.resolver.change('vm1', { denyDomains: ['*.example'] });
    expect(await asked).toMatchObject({ rcode: 'REFUSED' });
    const unanswered = ask(bench.address, query('a.test'), { timeoutMs: 400 });
    await eventually(() => expect(bench.stats.pending).toBe(1));
    await bench.resolver.remove('vm1');
    expect(await unanswered).toBeUndefined();
    expect(bench.opened).toEqual([]);
  });

  it('that hangs does not hold up the end of the resolver', async () => {
    const bench = await Bench.create({ upstreams: [await silent()] });
    const asked = Promise.all(
      Array.from({ length: 20 }, (_, n) =>
        ask(bench.address, query(`n${n}.example`), { timeoutMs: 500 }),
      ),
    );
    await eventually(() => expect(bench.stats.pending).toBe(20));
    const startedAt = performance.now();
    await bench[Symbol.asyncDispose]();
    expect(performance.now() - startedAt).toBeLessThan(500);
    expect((await asked).every((reply) => reply === undefined)).toBe(true);
  });
});

describe('a guest that means harm', () => {
  const flood = async (address: string, packets: Iterable<Buffer>) => {
    const socket = createSocket('udp4');
    socket.bind(0, '127.0.0.1');
    await once(socket, 'listening');
    for (const packet of packets) {
      await new Promise((resolve) => socket.send(packet, PORT, address, resolve));
    }
    socket.close();
  };

  it('costs its own service only', async () => {
    // The kernel's buffer loses most of the flood already: the rate is low, so that some is left to drop.
    const policy = { limits: { queriesPerSecond: 10, queryBurst: 50 } };
    await using bench = await Bench.create({ upstreams: [await honest()] }, policy);
    const victim = loopback();
    await bench.resolver.add({ id: 'vm2', listenAddress: victim, guestAddress: '127.0.0.1' });
    const valid = query('a.example');
    const packets = Array.from({ length: 5_000 }, () => {
      const packet = Buffer.concat([valid, randomBytes(randomInt(40))]);
      for (let hit = randomInt(8); hit > 0; hit -= 1)
        packet[randomInt(packet.length)] = randomInt(256);
      return packet;
    });
    const flooding = flood(bench.address, packets);
    const times: number[] = [];
    for (let round = 0; round < 20; round += 1) {
      const startedAt = performance.now();
      expect(await ask(victim, query('b.example'))).toBeDefined();
      times.push(performance.now() - startedAt);
    }
    await flooding;
    expect(times.sort((one, two) => one - two)[10]).toBeLessThan(1_000);
    expect(bench.resolver.stats('vm2')).toMatchObject({ answered: 20 });
    const { dropped, malformed, eventsLost } = bench.stats;
    expect(dropped).toBeGreaterThan(0);
    expect(malformed).toBeGreaterThan(0);
    expect(bench.events.length + eventsLost).toBeLessThan(5_000);
  });

  it('has so many queries under way and no more, and others still get theirs', async () => {
    await using bench = await Bench.create(
      { upstreams: [await silent()], pendingQueries: 10 },
      { limits: { pendingQueries: 12 } },
    );
    const other = loopback();
    await bench.resolver.add({ id: 'vm2', listenAddress: other, guestAddress: '127.0.0.1' });
    await flood(
      bench.address,
      Array.from({ length: 30 }, (_, n) => query(`n${n}.example`)),
    );
    await eventually(() => expect(bench.stats.queries).toBe(30));
    expect(bench.stats).toMatchObject({ pending: 10, limited: 20 });
    await flood(
      other,
      Array.from({ length: 5 }, (_, n) => query(`m${n}.example`)),
    );
    await eventually(() => expect(bench.resolver.stats('vm2').pending).toBe(5));
  });

  it('is answered as malformed, or not at all', async () => {
    await using bench = await Bench.create({ upstreams: [await honest()] });
    const rcodeOf = async (change: (packet: Buffer) => void) => {
      const packet = query('a.example');
      change(packet);
      const reply = await ask(bench.address, packet, { timeoutMs: 200 });
      return reply === undefined ? undefined : (decode(reply) as Answered).rcode;
    };
    expect(await rcodeOf((packet) => packet.writeUInt16BE(2, 4))).toBe('FORMERR');
    expect(await rcodeOf((packet) => packet.writeUInt16BE(0xc00c, 12))).toBe('FORMERR');
    expect(await rcodeOf((packet) => packet.writeUInt16BE(0x2800, 2))).toBe('NOTIMP');
    expect(await rcodeOf((packet) => packet.writeUInt16BE(0x8180, 2))).toBeUndefined();
    expect(bench.stats.malformed).toBe(4);
    expect((await bench.ask('a.example')).rcode).toBe('NOERROR');
  });
});

describe('TCP', () => {
  it('answers as replies get ready, in pieces, and after the guest’s end of its side', async () => {
    const server = await upstream((packet, reply) => {
      const isSlow = decode(packet).questions![0]!.name.startsWith('slow');
      setTimeout(() => reply(answerTo(packet)), isSlow ? 200 : 0);
    });
    await using bench = await Bench.create({ upstreams: [server] });
    const guest = new TcpGuest(bench.address);
    guest.send(query('slow.example', 'A', true, 1), query('fast.example', 'A', true, 2));
    for (const byte of framed(query('bytes.example', 'A', true, 3))) {
      guest.socket.write(Buffer.from([byte]));
      await delay(1);
    }
    guest.socket.end();
    await eventually(() => expect(guest.isClosed).toBe(true));
    expect(guest.replies.map((reply) => reply.id).sort()).toEqual([1, 2, 3]);
    expect(guest.replies.at(-1)?.id).toBe(1);
    await eventually(() => expect(bench.stats.tcpConnections).toBe(0));
  });

  it('has so many connections and no more', async () => {
    const policy = { limits: { tcpConnections: 3 } };
    await using bench = await Bench.create({ upstreams: [await honest()] }, policy);
    const guests = Array.from({ length: 8 }, () => new TcpGuest(bench.address));
    await eventually(() => expect(guests.filter((guest) => guest.isClosed)).toHaveLength(5));
    expect(bench.stats).toMatchObject({ tcpConnections: 3, dropped: 5 });
    for (const guest of guests) guest.socket.destroy();
    await eventually(() => expect(bench.stats.tcpConnections).toBe(0));
    const late = new TcpGuest(bench.address);
    late.send(query('a.example'));
    await eventually(() => expect(late.replies).toHaveLength(1));
    late.socket.destroy();
  });

  it('takes so many queries at once, and the rest when some are answered', async () => {
    let underWay = 0;
    let most = 0;
    const server = await upstream((packet, reply) => {
      most = Math.max(most, (underWay += 1));
      setTimeout(() => {
        underWay -= 1;
        reply(answerTo(packet));
      }, 20);
    });
    await using bench = await Bench.create({ upstreams: [server] });
    const guest = new TcpGuest(bench.address);
    guest.send(...Array.from({ length: 80 }, (_, n) => query(`n${n}.example`)));
    await eventually(() => expect(guest.replies).toHaveLength(80));
    expect(most).toBeLessThanOrEqual(16);
    expect(most).toBeGreaterThan(4);
    guest.socket.destroy();
  });

  it.each([
    ['a frame of 65,535 bytes', [Buffer.from([0xff, 0xff])]],
    ['much more than a query', [framed(Buffer.alloc(1_025))]],
  ])('ends with %s', async (_, chunks) => {
    await using bench = await Bench.create({ upstreams: [await honest()] });
    const guest = new TcpGuest(bench.address);
    for (const chunk of chunks) guest.socket.write(chunk);
    await eventually(() => expect(guest.isClosed).toBe(true));
    expect(bench.stats.tcpConnections).toBe(0);
  });

  it('ends for who sends slowly, and for who does not read', async () => {
    const spec = { id: 'vm1', listenAddress: loopback(), guestAddress: '127.0.0.1' };
    using servers = new Upstream(ServerList.of([await honest()], () => 0));
    const client = new Client(spec, {
      upstream: servers,
      events: new EventStream(),
      onAddresses: () => undefined,
      ...{ graceSeconds: 0, maxTtlSeconds: 60, never: [] },
      gate: new PendingGate(100),
      now: () => performance.now(),
    });
    await using listener = await TcpListener.open(client, PORT, 300);
    const slow = new TcpGuest(spec.listenAddress);
    const drip = setInterval(() => slow.socket.write(Buffer.from([0])), 50);
    slow.socket.write(Buffer.from([0x03]));
    await eventually(() => expect(slow.isClosed).toBe(true));
    clearInterval(drip);
    slow.socket.destroy();
    const deaf = new TcpGuest(spec.listenAddress);
    deaf.socket.pause();
    deaf.send(...Array.from({ length: 500 }, () => query('a.example', 'AAAA')));
    await eventually(() => expect(listener.connections).toBe(1));
    await eventually(() => expect(listener.connections).toBe(0));
    deaf.socket.destroy();
  });
});
