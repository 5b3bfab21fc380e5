/** The agent's HTTP/2 side: routes, bodies, errors. */
import {
  constants,
  performServerHandshake,
  type IncomingHttpHeaders,
  type ServerHttp2Stream,
} from 'node:http2';
import { setDefaultHighWaterMark } from 'node:stream';
import { ByteCollector } from './byte-collector.ts';
import { complain } from './channels.ts';
import { GoawayWatch, NO_ERROR } from './goaway-watch.ts';
import { receiveExec, sendExecOutput, writeStdin } from './exec-streams.ts';
import type { Execs } from './execs.ts';
import { growRoot } from './grow-root.ts';
import { setNetwork } from './network.ts';
import { parseNetworkSpec } from './network-spec.ts';
import {
  BODY_TIMEOUT_MS,
  GUEST_WINDOW_BYTES,
  HTTP2_OPTIONS,
  LIMITS,
  type ErrorReply,
  type ThawReply,
} from './protocol.ts';
import { parseRenewSpec } from './renew-spec.ts';
import { flushDisks, renew } from './renew.ts';
import { RequestError } from './request-error.ts';
import type { SocketDuplex } from './socket-duplex.ts';
import type { ServeHttp2 } from './session.ts';
import { parseNumber, parseObject, parseSignalRequest } from './spec.ts';
import { addEntropy, pingReply, poweroff, setClock, setHostname, status } from './system.ts';

/** HTTP/2 streams take their buffer's size from here, and 16 KiB would mean a wake-up per frame. */
const STREAM_BUFFER_BYTES = 256 * 1024;

/** A server of HTTP/2 on connections, over the given execs. */
export function http2Server(execs: Execs): ServeHttp2 {
  setDefaultHighWaterMark(false, STREAM_BUFFER_BYTES);
  return (connection: SocketDuplex) =>
    new Promise((resolve) => {
      const session = performServerHandshake(connection, HTTP2_OPTIONS);
      const goaway = new GoawayWatch(0, (code) => {
        if (code !== NO_ERROR) setImmediate(() => session.destroy()); // it is about to send
      });
      connection.onSent = (chunk) => goaway.push(chunk);
      session.setLocalWindowSize(GUEST_WINDOW_BYTES);
      session.on('stream', (stream, headers) => void answer(execs, stream, headers));
      session.on('error', () => session.destroy());
      // The host takes its leave. On a wire that does not end, Node would wait for its end for ever.
      session.on('goaway', () => connection.destroy());
      session.once('close', () => {
        connection.destroy();
        resolve();
      });
    });
}

async function answer(
  execs: Execs,
  stream: ServerHttp2Stream,
  headers: IncomingHttpHeaders,
): Promise<void> {
  stream.on('error', () => stream.destroy()); // reset by the host, or the connection is gone
  try {
    await route(execs, stream, headers);
  } catch (error) {
    const known = error instanceof RequestError;
    if (!known) complain(`${headers[':method']} ${headers[':path']}`, error);
    const { code = 'EINTERNAL', message } = error as NodeJS.ErrnoException;
    reply(stream, { error: { code, message } } satisfies ErrorReply, known ? error.status : 500);
    stream.resume(); // what is left of the body
  }
}

const EXEC_PATH = /^\/execs\/([\w-]{1,64})\/(output|stdin|signal)$/;

async function route(
  execs: Execs,
  stream: ServerHttp2Stream,
  headers: IncomingHttpHeaders,
): Promise<void> {
  const [path = '', query = ''] = (headers[':path'] ?? '').split('?', 2);
  const request = `${headers[':method']} ${path}`;
  switch (request) {
    case 'POST /execs':
      return receiveExec(execs, stream, headers);
    case 'GET /execs':
      return reply(stream, execs.list());
    case 'GET /ping':
      return reply(stream, pingReply());
    case 'GET /status':
      return reply(stream, await status(execs.runningCount));
    case 'POST /clock': {
      const unixMs = parseNumber('unixMs', (await readObject(stream))['unixMs'], 0, LIMITS.unixMs);
      return reply(stream, { stepMs: await setClock(unixMs) });
    }
    case 'POST /entropy': {
      const bytes = await readBody(stream, LIMITS.entropyBytes);
      parseNumber('length', bytes.length, LIMITS.minEntropyBytes, LIMITS.entropyBytes);
      await addEntropy(bytes);
      return reply(stream);
    }
    case 'POST /hostname':
      setHostname((await readObject(stream))['hostname']);
      return reply(stream);
    case 'POST /network':
      await setNetwork(parseNetworkSpec(await readObject(stream)));
      return reply(stream);
    case 'POST /grow':
      await growRoot();
      return reply(stream);
    case 'POST /sync':
      await flushDisks();
      return reply(stream);
    case 'POST /park':
      await execs.park();
      return reply(stream);
    case 'POST /thaw': {
      const unixMs = parseNumber('unixMs', (await readObject(stream))['unixMs'], 0, LIMITS.unixMs);
      await setClock(unixMs);
      return reply(stream, { stoodMs: await execs.goOn({ asCopy: false }) } satisfies ThawReply);
    }
    case 'POST /renew': {
      const spec = parseRenewSpec((await readBody(stream)).toString('utf8'));
      await renew(spec);
      await execs.goOn({ asCopy: true });
      return reply(stream, pingReply(spec.bootId)); // of the machine that it is now
    }
    case 'POST /poweroff':
      reply(stream);
      stream.once('close', poweroff);
      return;
    default:
      return routeExec(execs, stream, request, query);
  }
}

async function routeExec(
  execs: Execs,
  stream: ServerHttp2Stream,
  request: string,
  query: string,
): Promise<void> {
  const [method, path = ''] = request.split(' ');
  const [, id = '', what] = EXEC_PATH.exec(path) ?? [];
  if (method === 'GET' && what === 'output') {
    sendExecOutput(execs.get(id), stream);
  } else if (method === 'POST' && what === 'stdin') {
    await writeStdin(execs.get(id), stream, query === 'eof=1');
    reply(stream);
  } else if (method === 'POST' && what === 'signal') {
    const exec = execs.get(id);
    const { signal, tree } = parseSignalRequest((await readBody(stream)).toString('utf8'));
    exec.signal(signal, tree);
    reply(stream);
  } else {
    throw new RequestError('ENOSYS', `no such request: ${request.slice(0, 100)}`, 404);
  }
}

function reply(
  stream: ServerHttp2Stream,
  body?: unknown,
  status = body === undefined ? 204 : 200,
): void {
  if (stream.destroyed || stream.headersSent) return;
  if (body === undefined) {
    stream.respond({ ':status': status }, { endStream: true });
    return;
  }
  stream.respond({ ':status': status, 'content-type': 'application/json' });
  stream.end(JSON.stringify(body));
}

async function readObject(stream: ServerHttp2Stream): Promise<Record<string, unknown>> {
  return parseObject((await readBody(stream)).toString('utf8'));
}

async function readBody(
  stream: ServerHttp2Stream,
  limit: number = LIMITS.jsonBytes,
): Promise<Buffer> {
  const collected = new ByteCollector();
  const deadline = setTimeout(() => stream.close(constants.NGHTTP2_CANCEL), BODY_TIMEOUT_MS);
  try {
    const body = stream.iterator({ destroyOnReturn: false }) as AsyncIterable<Buffer>;
    for await (const chunk of body) {
      collected.push(chunk);
      if (collected.length > limit)
        throw new RequestError('E2BIG', `body is longer than ${limit} bytes`, 413);
    }
    return collected.bytes();
  } finally {
    clearTimeout(deadline);
  }
}
