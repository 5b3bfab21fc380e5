import { once } from 'node:events';
import { connect, createServer, type AddressInfo, type Server } from 'node:net';
import { text } from 'node:stream/consumers';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { PortForwards } from '../../../src/network/service/port-forwards.ts';

/** Stands for the guest: answers with all it got, once the caller has ended. */
const GUEST = '127.0.0.7';
let guest: Server;
let guestPort: number;
beforeAll(async () => {
  guest = createServer({ allowHalfOpen: true }, (socket) => {
    let said = '';
    socket.setEncoding('utf8').on('data', (chunk: string) => (said += chunk));
    socket.once('end', () => socket.end(`you said ${said}`));
    socket.on('error', () => undefined);
  }).listen(0, GUEST);
  await once(guest, 'listening');
  guestPort = (guest.address() as AddressInfo).port;
});
afterAll(() => {
  guest.close();
});

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, 'close');
  return port;
}

const ask = async (port: number, words: string): Promise<string> => {
  const socket = connect(port, '127.0.0.1');
  socket.on('error', () => undefined);
  socket.end(words);
  return text(socket);
};

it('a caller reaches the guest, whose answer may come after the caller’s end', async () => {
  await using forwards = new PortForwards();
  const hostPort = await freePort();
  await forwards.add('vm', GUEST, [
    { protocol: 'tcp', hostAddress: '127.0.0.1', hostPort, guestPort },
  ]);
  const words = 'x'.repeat(1_000_000);
  expect(await ask(hostPort, words)).toBe(`you said ${words}`);
  const open = connect(hostPort, '127.0.0.1').on('error', () => undefined);
  await once(open, 'connect');
  await forwards.remove('vm');
  await once(open, 'close');
  await expect(once(connect(hostPort, '127.0.0.1'), 'connect')).rejects.toThrow('ECONNREFUSED');
});

it('a guest that does not listen ends the call', async () => {
  await using forwards = new PortForwards();
  const [hostPort, nobody] = [await freePort(), await freePort()];
  await forwards.add('vm', GUEST, [
    { protocol: 'tcp', hostAddress: '127.0.0.1', hostPort, guestPort: nobody },
  ]);
  expect(await ask(hostPort, 'hello')).toBe('');
});

it('a port that is taken is an error that names it, and none of the VM’s is left', async () => {
  await using forwards = new PortForwards();
  const taken = createServer().listen(0, '127.0.0.1');
  await once(taken, 'listening');
  const { port } = taken.address() as AddressInfo;
  const hostPort = await freePort();
  const to = { protocol: 'tcp' as const, hostAddress: '127.0.0.1', guestPort };
  const both = [
    { ...to, hostPort },
    { ...to, hostPort: port },
  ];
  await expect(forwards.add('vm', GUEST, both)).rejects.toMatchObject({
    code: 'ERR_HOST_SOCKET',
    message: `127.0.0.1:${port} cannot be published: another program has it`,
  });
  taken.close();
  await expect(once(connect(hostPort, '127.0.0.1'), 'connect')).rejects.toThrow('ECONNREFUSED');
});
