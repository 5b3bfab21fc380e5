/** Whatever a host sends, the agent goes on, within its memory, and answers the next who asks. */
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import type { ClientHttp2Stream } from 'node:http2';
import type { Socket } from 'node:net';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { hostPreamble } from '../../../guest-agent/preamble.ts';
import { LIMITS, PROTOCOL_VERSION, SPEC_HEADER } from '../../../guest-agent/protocol.ts';
import { FLAG, frame, STATUS_200, TYPE, u32 } from './hostile/http2-frames.ts';
import { LocalAgent, resultOf } from './local-agent.ts';
import { ask, greet, rawSession } from './raw-client.ts';
import { SCALE } from '../../scale.ts';

/** V8 leaves 30–50 MiB of garbage after the floods, as it pleases; what they pour is many times this. */
const MAX_GROWTH_MIB = 96;

let agent: LocalAgent;
let rssBefore: number;
beforeAll(async () => {
  agent = await LocalAgent.start();
  await using session = await agent.connect();
  await resultOf(await session.exec({ argv: ['true'] }));
  rssBefore = agent.rssMib();
});
afterEach(async () => {
  expect(agent.process).toMatchObject({ exitCode: null, signalCode: null });
  await using session = await agent.connect();
  const exec = await session.exec({ argv: ['echo', 'alive'] });
  expect(await resultOf(exec)).toMatchObject({ stdout: 'alive\n', exitCode: 0 });
  expect(agent.rssMib() - rssBefore).toBeLessThan(MAX_GROWTH_MIB);
});
afterAll(() => agent[Symbol.asyncDispose]());

/** Writes with back-pressure, until all is written or the agent has closed the connection. */
async function pour(socket: Socket, pieces: Iterable<Buffer | string>): Promise<void> {
  socket.on('error', () => undefined);
  for (const piece of pieces) {
    if (socket.destroyed) return;
    if (socket.write(piece)) continue;
    await new Promise<void>((resolve) => {
      const goOn = () => {
        socket.off('drain', goOn).off('close', goOn);
        resolve();
      };
      socket.on('drain', goOn).on('close', goOn);
    });
  }
}

function* repeat(times: number, piece: () => Buffer | string): Generator<Buffer | string> {
  for (let i = 0; i < times; i += 1) yield piece();
}

async function closed(socket: Socket): Promise<void> {
  socket.resume();
  if (!socket.closed) await once(socket, 'close', { signal: AbortSignal.timeout(10_000 * SCALE) });
}

describe('before HTTP/2', () => {
  it('garbage is skipped, however long, and the preamble behind it answered', async () => {
    const socket = await agent.dial();
    await pour(
      socket,
      repeat(128, () => randomBytes(64 * 1024)),
    );
    const nonce = randomBytes(16).toString('hex');
    socket.write(`\n${hostPreamble(nonce)}`);
    const [answer] = (await once(socket, 'data')) as [Buffer];
    expect(answer.toString()).toMatch(
      new RegExp(`^QMPAGENT ${PROTOCOL_VERSION} ${nonce} \\S+\\n$`),
    );
    socket.destroy();
  });

  it('who asks without end and never reads costs no memory', async () => {
    const socket = await agent.dial();
    socket.pause();
    await pour(
      socket,
      repeat(3000, () => hostPreamble(randomBytes(16).toString('hex')).repeat(100)),
    );
    socket.destroy();
  });

  it('more connections than its limit are turned away, until others end', async () => {
    const sockets: Socket[] = [];
    for (let i = 0; i < 64; i += 1) sockets.push(await greet(agent).catch(() => sockets[0]!));
    await expect(agent.connect({ timeoutMs: 1000 })).rejects.toMatchObject({ code: 'ERR_TIMEOUT' });
    for (const socket of sockets) socket.destroy();
  });
});

describe('frames', () => {
  const PREFACE = 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n';
  /** Past the preface, with a request open where one is needed. */
  async function past(): Promise<Socket> {
    const socket = await greet(agent);
    socket.on('error', () => undefined);
    socket.write(PREFACE);
    socket.write(frame(TYPE.settings, 0, 0));
    return socket;
  }
  const headers = frame(TYPE.headers, FLAG.endHeaders, 1, STATUS_200);

  it.each<[string, Buffer]>([
    ['garbage', randomBytes(4096)],
    ['the preamble of a host that starts anew', Buffer.from(hostPreamble('0'.repeat(32)))],
    ['a length beyond the limit', frame(TYPE.data, 0, 1, Buffer.alloc(64), 0xffffff)],
    ['headers of an even stream', frame(TYPE.headers, FLAG.endHeaders, 2, STATUS_200)],
    ['malformed HPACK', frame(TYPE.headers, FLAG.endHeaders, 1, Buffer.alloc(64, 0xff))],
    ['data of no stream', frame(TYPE.data, 0, 0, Buffer.alloc(8))],
    ['a window of 4 GiB', Buffer.concat([frame(TYPE.windowUpdate, 0, 0, u32(0x7fffffff))])],
    ['a promise', frame(TYPE.pushPromise, FLAG.endHeaders, 1, u32(2))],
    ['a continuation of nothing', frame(TYPE.continuation, 0, 1, STATUS_200)],
  ])('%s end the connection, not the agent', async (_what, bytes) => {
    const socket = await past();
    socket.write(bytes);
    socket.end();
    await closed(socket);
  });

  it.each<[string, Buffer]>([
    ['settings', frame(TYPE.settings, 0, 0)],
    ['pings', frame(TYPE.ping, 0, 0, Buffer.alloc(8))],
    ['resets', frame(TYPE.rstStream, 0, 1, u32(8))],
    ['empty continuations', frame(TYPE.continuation, 0, 1)],
    ['unknown frames', frame(0xbe, 0, 0, Buffer.alloc(4))],
  ])('%s without end, and nobody reads the answers', async (what, piece) => {
    const socket = await past();
    socket.pause();
    if (what === 'resets') socket.write(headers);
    if (what === 'empty continuations') socket.write(frame(TYPE.headers, 0, 1, STATUS_200));
    const flood = pour(
      socket,
      repeat(2000, () => Buffer.concat(Array<Buffer>(500).fill(piece))),
    );
    // The agent may have closed it, or stopped reading: then the flood stands still.
    await Promise.race([flood, agent.connect().then((session) => session.close())]);
    socket.destroy();
    await flood;
  });

  it('requests that are reset as soon as they are made', async () => {
    await using session = await rawSession(agent);
    for (let i = 0; i < 3000 && !session.destroyed; i += 1) {
      const stream = session.request({ ':method': 'GET', ':path': '/status' });
      stream.on('error', () => undefined);
      stream.close(8);
      if (i % 100 === 0) await new Promise(setImmediate);
    }
  });
});

describe('requests', () => {
  const spec = (text: string, length = Buffer.byteLength(text)) =>
    Buffer.concat([u32(length), Buffer.from(text)]);
  const post = (path: string) => ({ ':method': 'POST', ':path': path });

  it.each<[string, Record<string, string>, string, number, string]>([
    ['no such path', { ':method': 'GET', ':path': '/etc/passwd' }, '', 404, 'ENOSYS'],
    ['no such method', { ':method': 'PUT', ':path': '/execs' }, '', 404, 'ENOSYS'],
    ['a path of 8 KiB', { ':method': 'GET', ':path': `/${'x'.repeat(8192)}` }, '', 404, 'ENOSYS'],
    ['no such exec', { ':method': 'GET', ':path': '/execs/1-1/output' }, '', 404, 'ENOEXEC_ID'],
    ['no exec of that name', post('/execs/..%2f/signal'), '{}', 404, 'ENOSYS'],
    ['no JSON', post('/hostname'), 'oops', 400, 'EINVAL'],
    ['no object', post('/hostname'), '"name"', 400, 'EINVAL'],
    ['no hostname', post('/hostname'), '{}', 400, 'EINVAL'],
    ['a hostname with a line break', post('/hostname'), '{"hostname":"a\\nb"}', 400, 'EINVAL'],
    ['no time', post('/clock'), '{"unixMs":"now"}', 400, 'EINVAL'],
    ['a time beyond all bounds', post('/clock'), '{"unixMs":1e300}', 400, 'EINVAL'],
    ['too little entropy', post('/entropy'), 'x'.repeat(31), 400, 'EINVAL'],
    ['too much entropy', post('/entropy'), 'x'.repeat(4097), 413, 'E2BIG'],
    ['a body beyond its limit', post('/clock'), ' '.repeat(2 * 1024 * 1024), 413, 'E2BIG'],
    ['no spec', post('/execs'), '', 400, 'EINVAL'],
    ['a header that is no JSON', { ...post('/execs'), [SPEC_HEADER]: 'oops' }, '', 400, 'EINVAL'],
    ['a header without a spec', { ...post('/execs'), [SPEC_HEADER]: '' }, '', 400, 'EINVAL'],
    ['half a spec', post('/execs'), spec('{"argv":["true"]}', 500).toString(), 400, 'EINVAL'],
    ['a spec that is no JSON', post('/execs'), spec('oops').toString(), 400, 'EINVAL'],
    ['a spec of 1.9 GiB', post('/execs'), spec('x', 0x7fffffff).toString('latin1'), 413, 'E2BIG'],
  ])('%s', async (_what, headers, body, status, code) => {
    await using session = await rawSession(agent);
    const reply = await ask(session, headers, (stream) => {
      if (headers[':method'] !== 'GET') stream.end(Buffer.from(body, 'latin1'));
    });
    expect(reply.status, reply.body).toBe(status);
    expect(JSON.parse(reply.body)).toMatchObject({ error: { code } });
  });

  it('headers beyond their limit cost their stream', async () => {
    await using session = await rawSession(agent);
    await ask(session, { ':method': 'GET', ':path': '/ping' });
    const large = { ':method': 'GET', ':path': '/ping', x: 'y'.repeat(40_000) };
    expect((await ask(session, large)).status).not.toBe(200);
  });

  it('a spec that comes byte by byte is a spec', async () => {
    await using session = await rawSession(agent);
    const bytes = spec('{"argv":["echo","slow"]}');
    const reply = await ask(session, post('/execs'), (stream) => {
      const next = (at: number): void => {
        if (at === bytes.length) stream.end();
        else stream.write(bytes.subarray(at, at + 1), () => next(at + 1));
      };
      next(0);
    });
    expect(reply.body).toContain('slow');
  });

  it('more streams at once than its limit are refused; the others are served', async () => {
    await using session = await rawSession(agent);
    await ask(session, { ':method': 'GET', ':path': '/ping' }); // its settings are known
    const open: ClientHttp2Stream[] = [];
    for (let i = 0; i < LIMITS.streams + 44; i += 1) {
      const stream = session.request(post('/execs'));
      stream.on('error', () => undefined);
      open.push(stream);
    }
    const last = open.at(-1)!;
    for (const stream of open.slice(0, 45)) stream.end(spec('{"argv":["true"]}'));
    last.end(spec('{"argv":["true"]}'));
    await once(last, 'response', { signal: AbortSignal.timeout(20_000 * SCALE) });
    for (const stream of open) stream.close(8);
  });
});
