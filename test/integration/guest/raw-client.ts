/** HTTP/2 to the agent without the product's client, which would not send what it should not. */
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { connect, type ClientHttp2Session, type ClientHttp2Stream } from 'node:http2';
import type { Socket } from 'node:net';
import { HostPreambleReader, hostPreamble } from '../../../guest-agent/preamble.ts';
import type { LocalAgent } from './local-agent.ts';

/** A connection past the preamble. */
export async function greet(agent: LocalAgent): Promise<Socket> {
  const socket = await agent.dial();
  const nonce = randomBytes(16).toString('hex');
  const reader = new HostPreambleReader(nonce);
  socket.write(hostPreamble(nonce));
  for (;;) {
    const [chunk] = (await once(socket, 'data')) as [Buffer];
    if (!reader.push(chunk)) continue;
    socket.pause();
    return socket;
  }
}

/** An HTTP/2 session that its creator closes. */
export async function rawSession(agent: LocalAgent): Promise<ClientHttp2Session & AsyncDisposable> {
  const socket = await greet(agent);
  const session = connect('http://guest', { createConnection: () => socket });
  session.on('error', () => undefined);
  return Object.assign(session, {
    async [Symbol.asyncDispose]() {
      session.destroy();
      // Not `once` of node:events: the agent may have ended the session with an error, rightly.
      if (!socket.closed) await new Promise((resolve) => socket.once('close', resolve));
    },
  });
}

/** What came back. */
export interface RawReply {
  /** 0 where the stream was reset. */
  readonly status: number;
  readonly body: string;
  readonly rstCode: number;
}

/** Sends one request; `write` sends its body. */
export async function ask(
  session: ClientHttp2Session,
  headers: Record<string, string>,
  write: (stream: ClientHttp2Stream) => void = (stream) => stream.end(),
): Promise<RawReply> {
  const stream = session.request(headers);
  let status = 0;
  let body = '';
  stream.on('error', () => undefined);
  stream.on('response', (head) => (status = head[':status'] ?? 0));
  stream.on('data', (chunk: Buffer) => (body += chunk.toString('latin1')));
  const over = Promise.race([once(stream, 'close'), once(stream, 'end')]);
  write(stream);
  await over.catch(() => undefined);
  stream.close();
  return { status, body, rstCode: stream.rstCode };
}
