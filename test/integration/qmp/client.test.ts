import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { QmpClient } from '../../../qmp/index.ts';
import { TestQemu } from './qemu.ts';
import { StuckCommand } from './stuck-command.ts';

let qemu: TestQemu;
beforeAll(async () => {
  // A second monitor of the kind that is no QMP.
  qemu = await TestQemu.start((dir) => [
    ...['-M', 'none'],
    ...['-monitor', `unix:${join(dir, 'hmp.sock')},server=on,wait=off`],
  ]);
  await (await qemu.connect()).close();
});
afterAll(() => qemu[Symbol.asyncDispose]());

/** Connects, and keeps what goes over the wire. */
async function traced(): Promise<{ client: QmpClient; lines: string[] }> {
  const lines: string[] = [];
  const client = await qemu.connect({ onLine: (way, line) => lines.push(`${way} ${line}`) });
  return { client, lines };
}

describe('connect', () => {
  it('takes the greeting and enables oob, which QEMU offers', async () => {
    const { client, lines } = await traced();
    await using _client = client;
    expect(client.version.major).toBeGreaterThanOrEqual(7);
    expect(client.oobEnabled).toBe(true);
    expect(lines[0]).toMatch(/^in \{"QMP": /);
    expect(lines[1]).toBe(
      'out {"execute":"qmp_capabilities","arguments":{"enable":["oob"]},"id":"q1"}',
    );
    expect(lines[2]).toBe('in {"return": {}, "id": "q1"}');
    const { qemu: told } = await client.execute('query-version');
    expect(client.version).toMatchObject(told);
  });

  it('refuses a monitor for people', async () => {
    await expect(QmpClient.connect({ path: join(qemu.dir, 'hmp.sock') })).rejects.toMatchObject({
      code: 'ERR_QMP_PROTOCOL',
      message: expect.stringMatching(/^QMP message is not JSON: "QEMU /),
    });
  });

  it('tells of a socket that is not there, or too long a path', async () => {
    await expect(QmpClient.connect({ path: join(qemu.dir, 'none') })).rejects.toMatchObject({
      code: 'ERR_QMP_CONNECT',
      hint: expect.stringContaining('Start the VM first'),
    });
    await expect(QmpClient.connect({ path: `/${'x'.repeat(107)}` })).rejects.toMatchObject({
      code: 'ERR_HOST_SOCKET',
    });
  });

  it('waits while others are served, and is served after them', async () => {
    const first = await qemu.connect();
    // More than QEMU's backlog holds: the last ones meet EAGAIN.
    const later = Array.from({ length: 6 }, async () => {
      await using client = await QmpClient.connect({ path: qemu.path, timeoutMs: 60_000 });
      return await client.execute('query-status');
    });
    await expect(QmpClient.connect({ path: qemu.path, timeoutMs: 100 })).rejects.toMatchObject({
      code: 'ERR_QMP_CONNECT',
      message: expect.stringContaining('no greeting within 100 ms'),
      hint: expect.stringContaining('serves one client at a time'),
    });
    await first.close();
    expect(await Promise.all(later)).toHaveLength(6);
  });

  it('gives up on a QEMU that does not answer', async () => {
    await qemu.freeze();
    try {
      await expect(QmpClient.connect({ path: qemu.path, timeoutMs: 100 })).rejects.toMatchObject({
        code: 'ERR_QMP_CONNECT',
      });
      const reason = new Error('enough');
      const controller = new AbortController();
      const attempt = QmpClient.connect({ path: qemu.path, signal: controller.signal });
      controller.abort(reason);
      await expect(attempt).rejects.toBe(reason);
      await expect(QmpClient.connect({ path: qemu.path, signal: controller.signal })).rejects.toBe(
        reason,
      );
    } finally {
      qemu.thaw();
    }
    await (await qemu.connect()).close();
  });
});

describe('execute', () => {
  it('gives each of many commands in flight its own answer', async () => {
    await using client = await qemu.connect();
    const warnings: Error[] = [];
    const onWarning = (warning: Error): void => void warnings.push(warning);
    process.on('warning', onWarning);
    const { signal } = new AbortController();
    const answers = await Promise.all(
      Array.from({ length: 500 }, (_, i) =>
        client.execute('human-monitor-command', { 'command-line': `print/d ${i}` }, { signal }),
      ),
    );
    process.off('warning', onWarning);
    expect(answers).toEqual(Array.from({ length: 500 }, (_, i) => `${i}\r\n`));
    expect(warnings).toEqual([]);
  });

  it('rejects with what QEMU says', async () => {
    await using client = await qemu.connect();
    await expect(client.execute('job-cancel', { id: 'nobody' })).rejects.toMatchObject({
      code: 'ERR_QMP_COMMAND',
      command: 'job-cancel',
      errorClass: 'GenericError',
      desc: 'Job not found',
    });
  });

  it('sends at most 8 before answers come, and the rest in order', async () => {
    const { client, lines } = await traced();
    await using _client = client;
    await using stuck = await StuckCommand.start(qemu, client);
    const order: number[] = [];
    const calls = Array.from({ length: 20 }, async (_, i) => {
      await client.execute('query-status');
      order.push(i);
    });
    const sent = lines.filter((line) => line.startsWith('out ')).slice(1);
    expect(sent).toHaveLength(8);
    await stuck.release();
    await Promise.all(calls);
    expect(order).toEqual([...order.keys()]);
  });

  it('overtakes what is in flight, out of band', async () => {
    await using client = await qemu.connect();
    await using stuck = await StuckCommand.start(qemu, client);
    let answered = false;
    const inBand = client.execute('query-status').then(() => (answered = true));
    await client.execute('yank', { instances: [] }, { oob: true });
    await expect(client.execute('migrate-pause', {}, { oob: true })).rejects.toMatchObject({
      code: 'ERR_QMP_COMMAND',
      desc: expect.stringContaining('postcopy'),
    });
    expect(answered).toBe(false);
    await stuck.release();
    await inBand;
    await expect(stuck.result).rejects.toMatchObject({ code: 'ERR_QMP_COMMAND' });
    await expect(client.execute('query-status', {}, { oob: true })).rejects.toMatchObject({
      desc: expect.stringContaining('does not support OOB'),
    });
  });

  it('gives up in its time or when told to, and drops the late answers', async () => {
    const { client, lines } = await traced();
    await using _client = client;
    const controller = new AbortController();
    await using stuck = await StuckCommand.start(qemu, client, { signal: controller.signal });
    const late = client.execute('query-name', {}, { timeoutMs: 20 });
    await expect(late).rejects.toMatchObject({
      code: 'ERR_TIMEOUT',
      operation: 'QMP query-name',
      timeoutMs: 20,
    });
    // Fill the places in flight, so that one call still waits in this process.
    const others = Array.from({ length: 6 }, () => client.execute('query-status'));
    const unsent = client.execute('query-uuid', {}, { signal: controller.signal });
    const reason = { any: 'value' };
    controller.abort(reason);
    await expect(stuck.result).rejects.toBe(reason);
    await expect(unsent).rejects.toBe(reason);
    await stuck.release();
    await Promise.all(others);
    // The session goes on, the answers nobody waited for came, and the unsent was never sent.
    await client.execute('query-version');
    const answersTo = (id: string): number =>
      lines.filter((line) => line.startsWith('in ') && line.includes(`"id": "${id}"`)).length;
    expect([answersTo('q2'), answersTo('q3')]).toEqual([1, 1]);
    expect(lines.join('\n')).not.toContain('query-uuid');
  });

  it('keeps the session where QEMU cannot parse one command', async () => {
    await using client = await qemu.connect();
    await expect(client.executeRaw('query-status', { a: '\ud800' })).rejects.toMatchObject({
      code: 'ERR_QMP_COMMAND',
      desc: expect.stringContaining('JSON parse error'),
    });
    expect(await client.execute('query-status')).toMatchObject({ running: true });
  });

  it('carries any text there and back', async () => {
    await using client = await qemu.connect();
    const id = 'ümläut 🦀 "quoted" \\ \u0001';
    await expect(client.execute('object-del', { id })).rejects.toMatchObject({
      desc: expect.stringContaining(id),
    });
  });
});

describe('the end', () => {
  it('rejects all that is pending when QEMU is killed', async () => {
    await using doomed = await TestQemu.start();
    const client = await doomed.connect();
    const events = client.events();
    await using stuck = await StuckCommand.start(doomed, client);
    const results = Promise.allSettled([
      stuck.result,
      ...Array.from({ length: 30 }, () => client.execute('query-status')),
      client.waitForEvent('SHUTDOWN'),
      client.runJob((id) => client.execute('job-pause', { id })),
      events.next(),
    ]);
    doomed.process.kill('SIGKILL');
    for (const result of await results) {
      expect(result).toMatchObject({
        status: 'rejected',
        reason: { code: 'ERR_QMP_INTERRUPTED', hint: expect.stringContaining('stderr') },
      });
    }
    expect(await client.closed).toMatchObject({ code: 'ERR_QMP_INTERRUPTED' });
    await client.close();
  });

  it('rejects all that is pending when the client is closed', async () => {
    const client = await qemu.connect();
    await using stuck = await StuckCommand.start(qemu, client);
    const results = Promise.allSettled([
      stuck.result,
      client.execute('query-status'),
      client.waitForEvent('RESET'),
    ]);
    await Promise.all([client.close(), client.close()]);
    for (const result of await results) {
      expect(result).toMatchObject({
        reason: { code: 'ERR_QMP_INTERRUPTED', message: expect.stringContaining('was closed') },
      });
    }
    expect(await client.closed).toBeUndefined();
    await expect(client.execute('query-status')).rejects.toMatchObject({
      code: 'ERR_QMP_INTERRUPTED',
    });
  });

  it('comes after the answer to quit', async () => {
    await using leaving = await TestQemu.start();
    const client = await leaving.connect();
    const shutdown = client.waitForEvent('SHUTDOWN');
    await client.execute('quit');
    expect((await shutdown).data).toMatchObject({ guest: false, reason: 'host-qmp-quit' });
    expect(await client.closed).toMatchObject({ code: 'ERR_QMP_INTERRUPTED' });
  });
});
