/** One question to one upstream server. */
import { randomInt } from 'node:crypto';
import { createSocket } from 'node:dgram';
import { connect, isIPv6 } from 'node:net';
import {
  decodeReply,
  encodeQuery,
  MAX_REPLY_BYTES,
  type Question,
  type UpstreamReply,
} from './packet.ts';
import { RCODE } from './query.ts';
import type { Server } from './servers.ts';

/** So many wrong replies to one query are no coincidence: TCP cannot be guessed at (RFC 5452, 9.2). */
const MAX_FOREIGN_REPLIES = 8;

/** Bounds of one exchange. */
export interface ExchangeOptions {
  readonly timeoutMs: number;
  readonly signal: AbortSignal;
  /** Told of each reply that was not to our question: somebody may be guessing. */
  readonly onForeign: () => void;
}

/** Why an upstream server did not answer. */
export class ExchangeFailure extends Error {}

/** Asks over UDP, and over TCP where the answer does not fit. @throws {@link ExchangeFailure} */
export async function exchange(
  server: Server,
  question: Question,
  options: ExchangeOptions,
): Promise<UpstreamReply> {
  const deadline = performance.now() + options.timeoutMs;
  const rest = () => ({ ...options, timeoutMs: Math.max(1, deadline - performance.now()) });
  let reply = await overUdp(server, question, options, true);
  // A server from before EDNS (RFC 6891, 7).
  if (reply !== 'distrusted' && (reply.rcode === RCODE.formErr || reply.rcode === RCODE.notImp)) {
    reply = await overUdp(server, question, rest(), false);
  }
  if (reply !== 'distrusted' && !reply.isTruncated) return reply;
  return overTcp(server, question, rest());
}

/**
 * A socket of its own for each query: the kernel draws its port at random (udp(7),
 * ip_local_port_range), and, the socket being connected, drops what others send.
 */
function overUdp(
  server: Server,
  question: Question,
  { timeoutMs, signal, onForeign }: ExchangeOptions,
  withEdns: boolean,
): Promise<UpstreamReply | 'distrusted'> {
  const id = randomInt(0x10000);
  const socket = createSocket(isIPv6(server.address) ? 'udp6' : 'udp4');
  return settle<UpstreamReply | 'distrusted'>(
    { server, timeoutMs, signal, release: () => socket.close() },
    (resolve, reject) => {
      let foreign = 0;
      socket.on('error', reject);
      socket.on('message', (packet) => {
        const reply = decodeReply(packet, question, id);
        if (reply === 'broken') return reject(new Error('sent a reply that cannot be read'));
        if (reply !== 'foreign') return resolve(reply);
        onForeign();
        foreign += 1;
        if (foreign >= MAX_FOREIGN_REPLIES) resolve('distrusted');
      });
      socket.connect(server.port, server.address, (error?: Error) => {
        if (error) return reject(error);
        socket.send(encodeQuery(question, id, withEdns), (failure) => {
          if (failure) reject(failure);
        });
      });
    },
  );
}

function overTcp(
  server: Server,
  question: Question,
  { timeoutMs, signal }: ExchangeOptions,
): Promise<UpstreamReply> {
  const id = randomInt(0x10000);
  const socket = connect({ port: server.port, host: server.address, noDelay: true });
  return settle<UpstreamReply>(
    { server, timeoutMs, signal, release: () => socket.destroy() },
    (resolve, reject) => {
      let received = Buffer.alloc(0);
      socket.on('error', reject);
      socket.on('close', () => reject(new Error('closed the connection')));
      socket.on('connect', () => {
        const query = encodeQuery(question, id, true);
        const length = Buffer.alloc(2);
        length.writeUInt16BE(query.length);
        socket.write(Buffer.concat([length, query]));
      });
      socket.on('data', (chunk) => {
        received = Buffer.concat([received, chunk]);
        if (received.length < 2) return;
        const length = received.readUInt16BE(0);
        if (length > MAX_REPLY_BYTES) return reject(new Error(`sent a reply of ${length} bytes`));
        if (received.length < length + 2) return;
        const reply = decodeReply(received.subarray(2, length + 2), question, id);
        if (typeof reply === 'string') return reject(new Error(`sent a ${reply} reply over TCP`));
        resolve(reply);
      });
    },
  );
}

interface Settling {
  readonly server: Server;
  readonly timeoutMs: number;
  readonly signal: AbortSignal;
  /** Called exactly once, when all is over. */
  readonly release: () => void;
}

/** A promise with a deadline that lets go of its socket, whatever happens. */
function settle<T>(
  { server, timeoutMs, signal, release }: Settling,
  start: (resolve: (value: T) => void, reject: (error: Error) => void) => void,
): Promise<T> {
  return new Promise<T>((resolve, reject) => {
    let isSettled = false;
    const end = (outcome: () => void): void => {
      if (isSettled) return;
      isSettled = true;
      clearTimeout(timer);
      signal.removeEventListener('abort', onAbort);
      release();
      outcome();
    };
    const fail = (error: Error): void => {
      const where = `${server.address}:${server.port}`;
      end(() => reject(new ExchangeFailure(`${where}: ${error.message}`, { cause: error })));
    };
    const onAbort = (): void => fail(new Error('the resolver closes'));
    const timer = setTimeout(() => fail(new Error('no answer')), timeoutMs);
    if (signal.aborted) return onAbort();
    signal.addEventListener('abort', onAbort, { once: true });
    start((value) => end(() => resolve(value)), fail);
  });
}
