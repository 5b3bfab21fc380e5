/** Both sides of a resolver in tests: a real name server upstream, and guests that send what they like. */
import { spawn, type ChildProcess } from 'node:child_process';
import { randomInt } from 'node:crypto';
import { createSocket, type RemoteInfo, type Socket as UdpSocket } from 'node:dgram';
import { once } from 'node:events';
import { connect, createServer, type Socket } from 'node:net';
import { decode, encode, type DecodedPacket, type Packet } from 'dns-packet';
import { EventStream, type EventOf } from '../../../src/events.ts';
import {
  Resolver,
  type AddressAnswer,
  type ResolverOptions,
  type ResolverPolicy,
} from '../../../src/network/resolver/index.ts';
import { vi } from 'vitest';
import { SCALE } from '../../scale.ts';

export const PORT = 5301;
/** dns-packet's types lack the code that its packets have. */
export type Answered = DecodedPacket & { rcode: string };

/** A loopback address that no other test run is likely to have. */
export function loopback(): string {
  return `127.${randomInt(64, 128)}.${randomInt(256)}.${randomInt(2, 250)}`;
}

/** Waits until the expectation holds. */
export function eventually(holds: () => void): Promise<void> {
  return vi.waitFor(holds, { timeout: 10_000 * SCALE, interval: 10 });
}

/** dnsmasq with these arguments; answers for them and refuses all else. */
export async function startDnsmasq(
  args: readonly string[],
): Promise<{ server: string; stop(): Promise<void> }> {
  const address = loopback();
  const child: ChildProcess = spawn(
    'dnsmasq',
    [
      ...['--keep-in-foreground', '--conf-file=/dev/null', '--no-resolv', '--no-hosts'],
      ...['--user=', '--group=', '--pid-file=', '--bind-interfaces', '--except-interface=lo'],
      ...[`--listen-address=${address}`, `--port=${PORT}`, '--log-facility=-', ...args],
    ],
    {
      stdio: ['ignore', 'ignore', 'pipe'],
      env: { ...process.env, PATH: `${process.env['PATH']}:/usr/sbin` },
    },
  );
  let stderr = '';
  child.stderr?.on('data', (chunk: Buffer) => (stderr += chunk.toString()));
  const ended = once(child, 'exit').then(() => {
    throw new Error(`dnsmasq ended: ${stderr}`);
  });
  ended.catch(() => undefined);
  const answers = async (): Promise<void> => {
    for (let attempt = 0; attempt < 100; attempt += 1) {
      const ping = ask(address, encode({ id: 1, questions: [{ name: 'ping.test', type: 'A' }] }), {
        timeoutMs: 100,
      });
      if ((await ping) !== undefined) return;
    }
    throw new Error(`dnsmasq does not answer: ${stderr}`);
  };
  await Promise.race([answers(), ended]);
  return {
    server: `${address}:${PORT}`,
    stop: async () => {
      child.kill('SIGKILL');
      await ended.catch(() => undefined);
    },
  };
}

interface AskOptions {
  from?: string;
  timeoutMs?: number;
}

/** Sends a packet over UDP; the reply, or undefined where none came. */
export async function ask(
  server: string,
  packet: Buffer,
  { from = '127.0.0.1', timeoutMs = 3_000 }: AskOptions = {},
): Promise<Buffer | undefined> {
  const socket = createSocket('udp4');
  try {
    socket.bind(0, from);
    await once(socket, 'listening');
    socket.on('error', () => undefined);
    socket.send(packet, PORT, server);
    const signal = AbortSignal.timeout(timeoutMs * SCALE);
    const [reply] = (await once(socket, 'message', { signal })) as [Buffer];
    return reply;
  } catch {
    return undefined;
  } finally {
    socket.close();
  }
}

export function query(name: string, type = 'A', edns = true, id = randomInt(65_536)): Buffer {
  const opt = {
    type: 'OPT' as const,
    ...{ name: '.', udpPayloadSize: 1232, extendedRcode: 0, ednsVersion: 0 },
    ...{ flags: 0, flag_do: false, options: [] },
  };
  const questions = [{ name, type }] as Packet['questions'];
  return encode({ type: 'query', id, flags: 0x0100, questions, additionals: edns ? [opt] : [] });
}

/** A TCP connection to a resolver, as a stream of replies. */
export class TcpGuest {
  readonly socket: Socket;
  readonly replies: Answered[] = [];
  #received = Buffer.alloc(0);
  /** The other side ended, or reset, the connection. */
  isClosed = false;

  constructor(server: string, from = '127.0.0.1', allowHalfOpen = true) {
    this.socket = connect({ host: server, port: PORT, localAddress: from, allowHalfOpen });
    this.socket.on('error', () => undefined);
    this.socket.on('close', () => (this.isClosed = true));
    this.socket.on('end', () => (this.isClosed = true));
    this.socket.on('data', (chunk) => {
      this.#received = Buffer.concat([this.#received, chunk]);
      while (this.#received.length >= 2) {
        const end = 2 + this.#received.readUInt16BE(0);
        if (this.#received.length < end) return;
        this.replies.push(decode(this.#received.subarray(2, end)) as Answered);
        this.#received = this.#received.subarray(end);
      }
    });
  }

  send(...packets: Buffer[]): void {
    this.socket.write(Buffer.concat(packets.map(framed)));
  }
}

export function framed(packet: Buffer): Buffer {
  const length = Buffer.alloc(2);
  length.writeUInt16BE(packet.length);
  return Buffer.concat([length, packet]);
}

/** A resolver with one guest, and all that it told. */
export class Bench implements AsyncDisposable {
  readonly resolver: Resolver;
  readonly address: string;
  readonly events: EventOf<'dns.query'>[];
  readonly opened: (AddressAnswer & { id: string })[];

  private constructor(resolver: Resolver, address: string, told: Pick<Bench, 'events' | 'opened'>) {
    this.resolver = resolver;
    this.address = address;
    this.events = told.events;
    this.opened = told.opened;
  }

  static async create(
    options: ResolverOptions,
    policy?: ResolverPolicy,
    o: { hasIpv6?: boolean } = {},
  ): Promise<Bench> {
    const told = { events: [], opened: [] } as Pick<Bench, 'events' | 'opened'>;
    const stream = new EventStream();
    stream.subscribe((event) => {
      if (event.type === 'dns.query') told.events.push(event);
    });
    const resolver = await Resolver.create({
      port: PORT,
      events: stream,
      onAddresses: ({ id }, answer) => void told.opened.push({ id, ...answer }),
      ...options,
    });
    const address = loopback();
    const ends = { listenAddress: address, guestAddress: '127.0.0.1' };
    await resolver.add({ id: 'vm1', ...ends, policy, ...o });
    return new Bench(resolver, address, told);
  }

  /** Asks over UDP; throws where no reply comes. */
  async ask(name: string, type = 'A', edns = true): Promise<Answered> {
    const reply = await ask(this.address, query(name, type, edns), { timeoutMs: 6_000 });
    if (reply === undefined) throw new Error(`no reply for ${name}`);
    return decode(reply) as Answered;
  }

  get stats() {
    return this.resolver.stats('vm1');
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.resolver[Symbol.asyncDispose]();
  }
}

/** A name server that does what it is told to, for what no real one does. */
export async function startScripted(
  onQuery: (
    packet: Buffer,
    reply: (packet: Buffer, from?: UdpSocket) => void,
    from: RemoteInfo,
  ) => void,
  onTcp?: (socket: Socket) => void,
): Promise<{ server: string; stop(): Promise<void> }> {
  const address = loopback();
  const socket = createSocket('udp4');
  socket.bind(PORT, address);
  await once(socket, 'listening');
  socket.on('message', (packet, from) =>
    onQuery(packet, (reply, by = socket) => by.send(reply, from.port, from.address), from),
  );
  const sockets = new Set<Socket>();
  const tcp = createServer((connection) => {
    sockets.add(connection);
    connection.on('error', () => undefined);
    onTcp?.(connection);
  });
  if (onTcp !== undefined) await new Promise<void>((resolve) => tcp.listen(PORT, address, resolve));
  return {
    server: `${address}:${PORT}`,
    stop: async () => {
      await new Promise<void>((resolve) => socket.close(() => resolve()));
      for (const connection of sockets) connection.destroy();
      if (onTcp !== undefined) await new Promise((resolve) => tcp.close(resolve));
    },
  };
}
