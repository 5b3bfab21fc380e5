import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { QmpClient } from '../../../qmp/index.ts';
import { GREETING, ScriptedPeer } from './scripted-peer.ts';
import type { PeerConnection } from './scripted-peer.ts';

let server: ScriptedPeer;
let client: QmpClient;
let peer: PeerConnection;
beforeEach(async () => {
  server = await ScriptedPeer.listen();
  ({ client, peer } = await server.negotiate({ maxLineBytes: 1000 }));
});
afterEach(async () => {
  await client.close();
  await server[Symbol.asyncDispose]();
});

const EVENT = { event: 'STOP', timestamp: { seconds: 1, microseconds: 0 } };

/** What comes in pieces, split at every byte. */
async function sendByteByByte(text: string): Promise<void> {
  for (const byte of Buffer.from(text)) await peer.send(Buffer.from([byte]));
}

describe('a peer in pieces', () => {
  it('is put together again, in the middle of a character too', async () => {
    const name = 'grüße 🦀';
    const call = client.execute('query-name');
    const { id } = await peer.receive();
    await sendByteByByte(`${JSON.stringify({ return: { name }, id })}\n`);
    expect(await call).toEqual({ name });
  });

  it('may send many lines at once, empty ones among them', async () => {
    const events = client.events();
    const call = client.execute('query-name');
    const { id } = await peer.receive();
    const line = JSON.stringify(EVENT);
    await peer.send(`\r\n\n${line}\n${line}\r\n{"return": {}, "id": "${id}"}\n\n`);
    expect(await call).toEqual({});
    expect((await events.next()).value?.event).toBe('STOP');
    expect((await events.next()).value?.event).toBe('STOP');
  });
});

describe('a peer that breaks the protocol', () => {
  it.each([
    ['garbage', 'Segmentation fault\n', 'not JSON: "Segmentation fault"'],
    ['half a line, then another', '{"return": {}, "i{"event": "STOP"}\n', 'not JSON'],
    ['bytes that are no UTF-8', Buffer.from([0x22, 0xc3, 0x28, 0x22, 0x0a]), 'not valid UTF-8'],
    ['a message of no kind', { hello: 1 }, 'neither answer, event nor greeting'],
    ['an error of odd parts', { error: 'no' }, 'neither answer'],
    ['an event without a time', { event: 'STOP' }, 'neither answer'],
    ['an event of odd parts', { ...EVENT, data: 'x' }, 'neither answer'],
    ['an answer nobody asked for', { return: {}, id: 'q99' }, 'with an unknown id "q99"'],
    ['an id that is no text', { return: {}, id: 2 }, 'with an unknown id 2'],
    ['an id of many levels', { return: {}, id: [[[[]]]] }, 'with an unknown id [object]'],
    ['success without an id', { return: {} }, 'without an id'],
    ['a long line', `"${'x'.repeat(2000)}"\n`, 'longer than 1000 bytes'],
    ['a long line without an end', 'x'.repeat(2000), 'longer than 1000 bytes'],
    ['a greeting', GREETING, 'greeting came where an answer or an event was due'],
  ])('is left: %s', async (_what, data, message) => {
    const call = client.execute('query-name');
    const events = client.events();
    const failed = expect(call).rejects.toMatchObject({
      code: 'ERR_QMP_INTERRUPTED',
      message: expect.stringContaining(message),
      cause: expect.objectContaining({ code: 'ERR_QMP_PROTOCOL' }),
    });
    await peer.receive();
    await peer.send(data);
    await failed;
    await expect(events.next()).rejects.toMatchObject({ code: 'ERR_QMP_PROTOCOL' });
    expect(await client.closed).toMatchObject({ code: 'ERR_QMP_PROTOCOL' });
    // And the peer sees it.
    await expect(peer.receive()).rejects.toThrow('the client closed');
  });

  it('is quoted in part', async () => {
    await peer.send(`${'y'.repeat(900)}\n`);
    const error = await client.closed;
    expect(error?.message).toContain('(900 chars)');
    expect(error?.message.length).toBeLessThan(250);
  });

  it('answers twice: the second is one too many', async () => {
    const call = client.execute('query-name');
    const { id } = await peer.answer();
    await call;
    await peer.send({ return: {}, id });
    expect(await client.closed).toMatchObject({ code: 'ERR_QMP_PROTOCOL' });
  });
});

describe('an error without an id', () => {
  const UNPARSED = { error: { class: 'GenericError', desc: 'JSON parse error' } };

  it('is for the command in flight where there is one', async () => {
    const call = client.execute('query-name');
    await peer.receive();
    await peer.send(UNPARSED);
    await expect(call).rejects.toMatchObject({ code: 'ERR_QMP_COMMAND', desc: 'JSON parse error' });
    const next = client.execute('query-name');
    await peer.answer();
    expect(await next).toEqual({});
  });

  it('ends the session where it may be for several', async () => {
    const calls = Promise.allSettled([client.execute('query-name'), client.execute('query-uuid')]);
    await peer.send(UNPARSED);
    for (const result of await calls) {
      expect(result).toMatchObject({
        reason: {
          code: 'ERR_QMP_INTERRUPTED',
          message: expect.stringContaining('without an id (GenericError: JSON parse error)'),
        },
      });
    }
  });

  it('ends the session where nothing was asked', async () => {
    await peer.send(UNPARSED);
    expect(await client.closed).toMatchObject({ code: 'ERR_QMP_PROTOCOL' });
  });
});

describe('a peer that dies', () => {
  it('in the middle of an answer rejects all that is pending', async () => {
    const pending = Promise.allSettled([
      client.execute('query-name'),
      client.execute('query-uuid'),
    ]);
    const { id } = await peer.receive();
    await peer.send(`{"id": "${id}", "return": {"na`);
    peer.end();
    for (const result of await pending) {
      expect(result).toMatchObject({
        reason: {
          code: 'ERR_QMP_INTERRUPTED',
          message: expect.stringContaining('closed in the middle of a line'),
        },
      });
    }
  });

  it('takes with it only what it had not answered', async () => {
    const first = client.execute('query-name');
    const second = client.execute('query-uuid');
    second.catch(() => undefined);
    await peer.answer({ name: 'x' });
    peer.end();
    expect(await first).toEqual({ name: 'x' });
    await expect(second).rejects.toMatchObject({ code: 'ERR_QMP_INTERRUPTED' });
  });
});

describe('a flood', () => {
  /** Floods with events until the client has seen `until`. */
  async function flood(until: Promise<unknown>): Promise<void> {
    let isOver = false;
    void until.finally(() => (isOver = true)).catch(() => undefined);
    const block = `${JSON.stringify(EVENT)}\n`.repeat(1000);
    while (!isOver) await peer.send(block);
  }

  it('of events costs a slow reader its iterator, and nobody else anything', async () => {
    const slow = client.events({ names: ['STOP'] });
    let seen = 0;
    const fast = (async () => {
      for await (const _event of client.events()) if ((seen += 1) === 50_000) return;
    })();
    await flood(fast);
    let held = 0;
    await expect(
      (async () => {
        for await (const _event of slow) held += 1;
      })(),
    ).rejects.toMatchObject({
      code: 'ERR_QMP_PROTOCOL',
      message: expect.stringContaining('overran their reader: 1024 wait unread'),
    });
    expect(held).toBe(1024);
    const call = client.execute('query-name');
    await peer.answer();
    expect(await call).toEqual({});
  });
});
