import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { QmpClient } from '../../../qmp/index.ts';
import { GREETING, ScriptedPeer } from './scripted-peer.ts';

let server: ScriptedPeer;
beforeEach(async () => {
  server = await ScriptedPeer.listen();
});
afterEach(() => server[Symbol.asyncDispose]());

/** Connects to a peer that sends this at once. */
async function connectTo(...sent: (Buffer | string | object)[]): Promise<QmpClient> {
  const connecting = QmpClient.connect({ path: server.path });
  connecting.catch(() => undefined);
  const peer = await server.accept();
  for (const data of sent) await peer.send(data);
  return connecting;
}

describe('connect', () => {
  it.each([
    ['garbage', '\u0000\u0001 garbage\n', 'not JSON'],
    ['bytes that are no UTF-8', Buffer.from([0x7b, 0xff, 0xfe, 0x0a]), 'not valid UTF-8'],
    ['an answer', { return: {} }, 'return came where the greeting was due'],
    ['a guest agent', { return: { version: '7.2' }, id: 1 }, 'return came where the greeting'],
    ['no object', '[]\n', 'not a JSON object'],
    ['a greeting without version', { QMP: { capabilities: [] } }, 'neither answer, event nor'],
    ['a greeting of odd parts', { QMP: { version: { qemu: 7 }, capabilities: [] } }, 'neither'],
  ])('refuses %s', async (_what, data, message) => {
    await expect(connectTo(data)).rejects.toMatchObject({
      code: 'ERR_QMP_PROTOCOL',
      message: expect.stringContaining(message),
      hint: expect.any(String),
    });
  });

  it('refuses a second greeting', async () => {
    await expect(connectTo(GREETING, GREETING)).rejects.toMatchObject({
      code: 'ERR_QMP_PROTOCOL',
      message: expect.stringContaining(
        'greeting came where the answer to qmp_capabilities was due',
      ),
    });
  });

  it('tells of a peer that closes before it greets, or in the middle of that', async () => {
    const connecting = QmpClient.connect({ path: server.path });
    (await server.accept()).end();
    await expect(connecting).rejects.toMatchObject({
      code: 'ERR_QMP_CONNECT',
      message: expect.stringContaining('lost before it was ready: closed by QEMU'),
    });
    const half = QmpClient.connect({ path: server.path });
    const peer = await server.accept();
    await peer.send('{"QMP": {"vers');
    peer.end();
    await expect(half).rejects.toMatchObject({
      code: 'ERR_QMP_CONNECT',
      message: expect.stringContaining('closed in the middle of a line'),
    });
  });

  it('tells of a peer that closes before it has answered', async () => {
    const connecting = QmpClient.connect({ path: server.path });
    const peer = await server.accept();
    await peer.send(GREETING);
    await peer.receive();
    peer.end();
    await expect(connecting).rejects.toMatchObject({ code: 'ERR_QMP_CONNECT' });
  });

  it('gives a silent peer one time for all of it', async () => {
    const startedAt = performance.now();
    const silent = QmpClient.connect({ path: server.path, timeoutMs: 100 });
    await server.accept();
    await expect(silent).rejects.toMatchObject({
      code: 'ERR_QMP_CONNECT',
      message: expect.stringContaining('no greeting within 100 ms'),
      cause: expect.objectContaining({ code: 'ERR_TIMEOUT' }),
    });
    const deaf = QmpClient.connect({ path: server.path, timeoutMs: 100 });
    await (await server.accept()).send(GREETING);
    await expect(deaf).rejects.toMatchObject({
      code: 'ERR_QMP_CONNECT',
      message: expect.stringContaining('no answer to qmp_capabilities within 100 ms'),
    });
    expect(performance.now() - startedAt).toBeLessThan(5_000);
  });

  it('passes on that the negotiation is refused', async () => {
    const connecting = QmpClient.connect({ path: server.path });
    const peer = await server.accept();
    await peer.send(GREETING);
    const { id } = await peer.receive();
    await peer.send({ error: { class: 'GenericError', desc: 'no oob today' }, id });
    await expect(connecting).rejects.toMatchObject({
      code: 'ERR_QMP_COMMAND',
      desc: 'no oob today',
    });
  });

  it('takes an event that another thread sends before the negotiation is answered', async () => {
    const connecting = QmpClient.connect({ path: server.path });
    const peer = await server.accept();
    await peer.send(GREETING);
    const { id } = await peer.receive();
    await peer.send({ event: 'STOP', timestamp: { seconds: 1, microseconds: 2 } });
    await peer.send({ return: {}, id });
    await using client = await connecting;
    expect(client.version).toEqual({ major: 7, minor: 2, micro: 0, package: 'scripted' });
  });

  it('drops an event that was meant for the client before us', async () => {
    const connecting = QmpClient.connect({ path: server.path });
    const peer = await server.accept();
    await peer.send({ event: 'STOP', timestamp: { seconds: 1, microseconds: 2 } });
    await peer.send(GREETING);
    const { id } = await peer.receive();
    await peer.send({ return: {}, id });
    await using client = await connecting;
    expect(client.version.major).toBe(7);
  });

  it('does without oob where it is not offered', async () => {
    const connecting = QmpClient.connect({ path: server.path });
    const peer = await server.accept();
    await peer.send({ QMP: { ...GREETING.QMP, capabilities: ['other', 7] } });
    expect((await peer.answer()).arguments).toEqual({ enable: [] });
    await using client = await connecting;
    expect(client.oobEnabled).toBe(false);
    await expect(client.execute('migrate-pause', {}, { oob: true })).rejects.toMatchObject({
      code: 'ERR_QMP_PROTOCOL',
      message: expect.stringContaining('no out-of-band execution'),
    });
  });
});
