import { execFileSync } from 'node:child_process';
import { createSocket, type Socket } from 'node:dgram';
import { once } from 'node:events';
import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, beforeAll, expect, it, vi } from 'vitest';
import { PortForwards } from '../../../src/network/service/port-forwards.ts';
import { UdpForward } from '../../../src/network/service/udp-forward.ts';

/** Stands for the guest: answers with the port that it was spoken to from, and what was said. */
const GUEST = '127.0.0.7';
let guest: Socket;
beforeAll(async () => {
  guest = await bound(GUEST);
  guest.on('message', (data, from) => {
    guest.send(`${from.port} ${data.toString()}`, from.port, from.address);
  });
});
afterAll(() => {
  guest.close();
});

async function bound(address: string): Promise<Socket> {
  const socket = createSocket('udp4');
  socket.bind(0, address);
  await once(socket, 'listening');
  return socket;
}

async function freePort(): Promise<number> {
  const socket = await bound('127.0.0.1');
  const { port } = socket.address();
  socket.close();
  await once(socket, 'close');
  return port;
}

const published = async () => ({
  ...{ protocol: 'udp' as const, hostAddress: '127.0.0.1' },
  ...{ hostPort: await freePort(), guestPort: guest.address().port },
});

/** One who speaks to a published port from one address. */
class Caller implements Disposable {
  readonly #socket: Socket;
  readonly #to: number;
  readonly heard: string[] = [];

  private constructor(socket: Socket, to: number) {
    this.#socket = socket;
    this.#to = to;
    socket.on('message', (data) => this.heard.push(data.toString()));
  }

  static async open(to: number): Promise<Caller> {
    return new Caller(await bound('127.0.0.1'), to);
  }

  /** @returns the port by which the guest heard it */
  async ask(words: string): Promise<string> {
    this.#socket.send(words, this.#to, '127.0.0.1');
    return vi.waitFor(() => {
      const answer = this.heard.find((text) => text.endsWith(` ${words}`));
      expect(answer).toBeDefined();
      return answer!.split(' ')[0]!;
    });
  }

  say(words: string): void {
    this.#socket.send(words, this.#to, '127.0.0.1');
  }

  [Symbol.dispose](): void {
    this.#socket.close();
  }
}

it('each source has its own way to the guest, and hears its own answers', async () => {
  const port = await published();
  await using forwards = new PortForwards();
  await forwards.add('vm', GUEST, [port]);
  using one = await Caller.open(port.hostPort);
  using other = await Caller.open(port.hostPort);
  const [first, second] = [await one.ask('a'), await other.ask('b')];
  expect(second).not.toBe(first);
  expect([await one.ask('c'), await other.ask('d')]).toEqual([first, second]);
  expect(one.heard.map((text) => text.split(' ')[1])).toEqual(['a', 'c']);
  await forwards.remove('vm');
  one.say('e');
  await delay(200);
  expect(one.heard).toHaveLength(2);
  const again = await bound('127.0.0.1'); // and the port is free
  again.close();
  await forwards.add('vm', GUEST, [port]);
  expect(await one.ask('f')).not.toBe(first);
});

it('nobody but the guest is heard by a source', async () => {
  const port = await published();
  await using _forward = await UdpForward.open(GUEST, port);
  using one = await Caller.open(port.hostPort);
  const way = Number(await one.ask('a'));
  const stranger = await bound('127.0.0.1');
  stranger.send('forged', way, '127.0.0.1');
  await one.ask('b'); // later than that
  stranger.close();
  expect(one.heard).toHaveLength(2);
});

it('a source is forgotten after some silence, and not before', async () => {
  const port = await published();
  await using _forward = await UdpForward.open(GUEST, port, { idleMs: 1_000 });
  using one = await Caller.open(port.hostPort);
  const way = await one.ask('a');
  for (const words of ['b', 'c', 'd']) {
    await delay(400);
    expect(await one.ask(words)).toBe(way);
  }
  await delay(2_000);
  expect(await one.ask('e')).not.toBe(way);
});

it('a guest that goes on talking does not keep a source that is silent', async () => {
  const port = await published();
  await using _forward = await UdpForward.open(GUEST, port, { idleMs: 1_000 });
  using one = await Caller.open(port.hostPort);
  const way = await one.ask('a');
  const talk = setInterval(() => guest.send('more', Number(way), '127.0.0.1'), 100);
  try {
    await vi.waitFor(() => expect(one.heard).toContain('more'));
    await delay(1_500);
    const heard = one.heard.length;
    await delay(500);
    expect(one.heard).toHaveLength(heard);
    expect(await one.ask('b')).not.toBe(way);
  } finally {
    clearInterval(talk);
  }
});

it('a guest that went back to an earlier time inherits no source, and its port stays open', async () => {
  const port = await published();
  await using forwards = new PortForwards();
  await forwards.add('vm', GUEST, [port]);
  using one = await Caller.open(port.hostPort);
  const way = await one.ask('a');
  forwards.cut('vm');
  guest.send('late', Number(way), '127.0.0.1');
  expect(await one.ask('b')).not.toBe(way);
  expect(one.heard).not.toContain('late');
});

it('of too many sources the one goes that has been silent longest', async () => {
  const port = await published();
  await using _forward = await UdpForward.open(GUEST, port, { maxSessions: 2 });
  using one = await Caller.open(port.hostPort);
  using two = await Caller.open(port.hostPort);
  using three = await Caller.open(port.hostPort);
  const [wayOfOne, wayOfTwo] = [await one.ask('a'), await two.ask('b')];
  expect(await one.ask('c')).toBe(wayOfOne);
  const wayOfThree = await three.ask('d');
  expect([await one.ask('e'), await three.ask('f')]).toEqual([wayOfOne, wayOfThree]);
  expect(await two.ask('g')).not.toBe(wayOfTwo);
});

it('a source that has no port is heard by nobody, and harms nobody', async () => {
  const port = await published();
  await using _forward = await UdpForward.open(GUEST, port);
  const heard: string[] = [];
  const listen = (data: Buffer) => void heard.push(data.toString());
  guest.on('message', listen);
  const datagram = `import socket, struct
raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP)
raw.sendto(struct.pack('!HHHH', 0, ${port.hostPort}, 11, 0) + b'odd', ('127.0.0.1', 0))`;
  execFileSync('python3', ['-c', datagram]);
  using one = await Caller.open(port.hostPort);
  await one.ask('a');
  guest.off('message', listen);
  expect(heard).toEqual(['a']);
});

it('a port that is taken is an error that names it', async () => {
  const taken = await bound('127.0.0.1');
  const { port: hostPort } = taken.address();
  await using forwards = new PortForwards();
  await expect(
    forwards.add('vm', GUEST, [{ ...(await published()), hostPort }]),
  ).rejects.toMatchObject({
    code: 'ERR_HOST_SOCKET',
    message: `127.0.0.1:${hostPort}/udp cannot be published: another program has it`,
    hint: expect.stringContaining('ss -lunp'),
  });
  taken.close();
});
