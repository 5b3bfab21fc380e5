import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { QmpClient } from '../../../qmp/index.ts';
import { TestQemu } from './qemu.ts';

let qemu: TestQemu;
let client: QmpClient;
beforeAll(async () => {
  qemu = await TestQemu.start((dir) => [
    ...['-M', 'none'],
    ...['-qmp', `unix:${join(dir, 'second.sock')},server=on,wait=off`],
  ]);
  client = await qemu.connect();
});
afterAll(async () => {
  await client.close();
  await qemu[Symbol.asyncDispose]();
});

/** Causes STOP and RESUME. */
async function stopAndGo(): Promise<void> {
  await client.execute('stop');
  await client.execute('cont');
}

describe('events', () => {
  it('gives those that were asked for, in order, from the call on', async () => {
    await stopAndGo();
    const all = client.events();
    const resumes = client.events({ names: ['RESUME'] });
    await stopAndGo();
    await stopAndGo();
    const seen: string[] = [];
    for await (const { event, timestamp } of all) {
      expect(timestamp.seconds).toBeGreaterThan(1_600_000_000);
      if (seen.push(event) === 4) break;
    }
    expect(seen).toEqual(['STOP', 'RESUME', 'STOP', 'RESUME']);
    expect(await resumes.next()).toMatchObject({ value: { event: 'RESUME' } });
    expect(await resumes.next()).toMatchObject({ value: { event: 'RESUME' } });
    expect(await resumes.return?.()).toEqual({ done: true, value: undefined });
    expect(await resumes.next()).toEqual({ done: true, value: undefined });
  });

  it('serves several next() at once', async () => {
    const events = client.events();
    const both = Promise.all([events.next(), events.next()]);
    await stopAndGo();
    expect((await both).map(({ value }) => value?.event)).toEqual(['STOP', 'RESUME']);
    await events.return?.();
  });

  it('ends with the reason of its signal', async () => {
    const controller = new AbortController();
    const events = client.events({ signal: controller.signal });
    await stopAndGo();
    controller.abort(new Error('enough'));
    // What came before is still given.
    expect(await events.next()).toMatchObject({ value: { event: 'STOP' } });
    expect(await events.next()).toMatchObject({ value: { event: 'RESUME' } });
    await expect(events.next()).rejects.toThrow('enough');
    expect(await events.next()).toEqual({ done: true, value: undefined });
    const late = client.events({ signal: controller.signal });
    await expect(late.next()).rejects.toThrow('enough');
  });

  it('ends with an error when more wait than it holds', async () => {
    const events = client.events({ maxQueued: 3 });
    await stopAndGo();
    await stopAndGo();
    const seen: string[] = [];
    await expect(
      (async () => {
        for await (const { event } of events) seen.push(event);
      })(),
    ).rejects.toMatchObject({
      code: 'ERR_QMP_PROTOCOL',
      message: expect.stringContaining('overran their reader: 3 wait'),
    });
    expect(seen).toEqual(['STOP', 'RESUME', 'STOP']);
  });

  it('ends with an error when QEMU dies, after what came before', async () => {
    await using other = await TestQemu.start();
    const doomed = await other.connect();
    const events = doomed.events({ names: ['STOP'] });
    await doomed.execute('stop');
    other.process.kill('SIGKILL');
    await doomed.closed;
    expect(await events.next()).toMatchObject({ value: { event: 'STOP' } });
    await expect(events.next()).rejects.toMatchObject({ code: 'ERR_QMP_INTERRUPTED' });
    await expect(doomed.events().next()).rejects.toMatchObject({ code: 'ERR_QMP_INTERRUPTED' });
  });

  it('ends quietly when the client is closed', async () => {
    const mine = await QmpClient.connect({ path: join(qemu.dir, 'second.sock') });
    const quiet = mine.events();
    const waiting = quiet.next();
    await mine.close();
    expect(await waiting).toEqual({ done: true, value: undefined });
    expect(await mine.events().next()).toEqual({ done: true, value: undefined });
  });
});

describe('waitForEvent', () => {
  it('gives the first that matches', async () => {
    const event = client.waitForEvent(['STOP', 'RESUME'], {
      match: ({ event }) => event !== 'STOP',
    });
    await stopAndGo();
    expect(await event).toMatchObject({ event: 'RESUME' });
  });

  it('ends in time, when told to, and when match throws', async () => {
    await expect(client.waitForEvent('STOP', { timeoutMs: 10 })).rejects.toMatchObject({
      code: 'ERR_TIMEOUT',
      operation: 'QMP event STOP',
    });
    const reason = new Error('enough');
    await expect(client.waitForEvent('STOP', { signal: AbortSignal.abort(reason) })).rejects.toBe(
      reason,
    );
    const thrown = client.waitForEvent('STOP', {
      match: () => {
        throw reason;
      },
    });
    await stopAndGo();
    await expect(thrown).rejects.toBe(reason);
    expect(await client.execute('query-status')).toMatchObject({ running: true });
  });
});
