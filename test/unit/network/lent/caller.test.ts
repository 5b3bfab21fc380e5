import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import { hearCaller, type CallerOptions } from '../../../../src/network/lent/caller.ts';
import type { LoanReply, LoanRequest } from '../../../../src/network/lent/loan.ts';

const REPLY: LoanReply = { given: true };

let dir: string;
let server: Server;
let asked: LoanRequest[];
let unheard: LoanReply[];
let options: CallerOptions;
beforeEach(async () => {
  [asked, unheard] = [[], []];
  options = {
    answer: (request) => {
      asked.push(request);
      return Promise.resolve(REPLY);
    },
    onUnheard: (reply) => void unheard.push(reply),
    timeoutMs: 200,
  };
  dir = await mkdtemp(join(tmpdir(), 'qa-caller-'));
  server = createServer((socket) => hearCaller(socket, options)).listen(join(dir, 's'));
  await once(server, 'listening');
});
afterEach(async () => {
  await new Promise((resolve) => server.close(resolve)); // resolves when no caller is left
  await rm(dir, { recursive: true });
});

async function call(): Promise<Socket> {
  const socket = connect(join(dir, 's'));
  socket.on('error', () => undefined);
  await once(socket, 'connect');
  return socket;
}

/** What a caller hears until he is hung up on. */
async function heard(socket: Socket): Promise<string> {
  let text = '';
  socket.setEncoding('utf8').on('data', (chunk: string) => (text += chunk));
  await new Promise((resolve) => socket.once('close', resolve)); // whatever he is told of it
  return text;
}

it('a request is answered, however it comes in pieces', async () => {
  const socket = await call();
  const all = heard(socket);
  for (const piece of ['{"do":', '"take"', '}', '\n']) {
    socket.write(piece);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  expect(JSON.parse(await all)).toEqual(REPLY);
  expect(asked).toEqual([{ do: 'take' }]);
});

it.each([
  ['nonsense', 'nonsense\n'],
  ['bytes that are no text', Buffer.from([0xff, 0xfe, 0, 0x0a])],
  ['two requests at once', '{"do":"take"}\n{"do":"take"}\n'],
  ['more than a request can be', `{"do":"take"${' '.repeat(300)}}\n`],
  ['a line without an end', 'x'.repeat(100_000)],
])('%s: he is hung up on, and nothing is done', async (_, text) => {
  const socket = await call();
  const all = heard(socket);
  socket.write(text);
  expect(await all).toBe('');
  expect(asked).toEqual([]);
});

it('who says nothing, or one byte after the other, is hung up on in time', async () => {
  const [silent, slow] = [await call(), await call()];
  const ends = Promise.all([heard(silent), heard(slow)]);
  const timer = setInterval(() => slow.write(' '), 20);
  expect(await ends).toEqual(['', '']);
  clearInterval(timer);
  expect(asked).toEqual([]);
});

it('a second request while the first is done is the end of the call; what was given is known to be unheard', async () => {
  let give: (reply: LoanReply) => void = () => undefined;
  options = {
    ...options,
    answer: (request) => {
      asked.push(request);
      return new Promise((resolve) => (give = resolve));
    },
  };
  const socket = await call();
  const all = heard(socket);
  socket.write('{"do":"take"}\n');
  await vi.waitFor(() => expect(asked).toHaveLength(1));
  socket.write('{"do":"take"}\n');
  expect(await all).toBe('');
  give(REPLY);
  await vi.waitFor(() => expect(unheard).toEqual([REPLY]));
  expect(asked).toHaveLength(1);
});

it('who hears the reply and does not hang up is hung up on', async () => {
  const socket = connect({ path: join(dir, 's'), allowHalfOpen: true });
  await once(socket, 'connect');
  socket.resume();
  socket.write('{"do":"take"}\n');
  await once(socket, 'end');
  const connections = () =>
    new Promise((resolve) => server.getConnections((_, count) => resolve(count)));
  await vi.waitFor(async () => expect(await connections()).toBe(0));
  socket.destroy();
});
