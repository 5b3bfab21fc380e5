/** Sessions with the real agent: what it tells, what it keeps, who may come back to it. */
import { once } from 'node:events';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { PROTOCOL_VERSION } from '../../../guest-agent/protocol.ts';
import { events, type SystemEvent } from '../../../src/events.ts';
import type { GuestError } from '../../../src/errors.ts';
import type { GuestExec, GuestOutput, GuestSession } from '../../../src/guest/index.ts';
import { LocalAgent, resultOf } from './local-agent.ts';
import { greet } from './raw-client.ts';
import { SCALE } from '../../scale.ts';

let agent: LocalAgent;
let session: GuestSession;
beforeAll(async () => {
  agent = await LocalAgent.start();
  session = await agent.connect();
});
afterAll(async () => {
  await session.close();
  await agent[Symbol.asyncDispose]();
});

const sh = (script: string) => ({ argv: ['sh', '-c', script] });

/** Reads until that much has come. */
async function read(exec: GuestExec, bytes: number): Promise<GuestOutput[]> {
  const pieces: GuestOutput[] = [];
  let left = bytes;
  for await (const piece of exec.output) {
    pieces.push(piece);
    if ('data' in piece) left -= piece.data.length;
    if (left <= 0) break;
  }
  return pieces;
}

describe('the agent', () => {
  it('says who it is', () => {
    expect(session.agent).toEqual({
      ...{ agentVersion: '0.1.0', protocol: PROTOCOL_VERSION, node: process.versions.node },
      bootId: expect.stringMatching(/^[0-9a-f-]{36}$/) as unknown,
    });
  });

  it('answers pings in a moment, many at once too, but not without end', async () => {
    expect(await session.ping()).toBeGreaterThan(0);
    const pings = await Promise.allSettled(Array.from({ length: 4 }, () => session.ping()));
    expect(pings.map(({ status }) => status)).toEqual(Array(4).fill('fulfilled'));
  });

  it('has a session for each who comes: one after the other, at once, and after some who left early', async () => {
    for (let turn = 0; turn < 3; turn += 1) {
      await using one = await agent.connect();
      expect(await one.ping()).toBeGreaterThan(0);
      const mute = await greet(agent);
      mute.destroy(); // before there was any HTTP/2
      await using other = await agent.connect();
      const [first, second] = await Promise.all([one.exec(sh('echo 1')), other.exec(sh('echo 2'))]);
      expect(await resultOf(first)).toMatchObject({ stdout: '1\n' });
      expect(await resultOf(second)).toMatchObject({ stdout: '2\n' });
    }
  });

  it('tells how the guest is', async () => {
    const status = await session.status();
    expect(status.memory.totalBytes).toBeGreaterThan(status.memory.availableBytes);
    expect(status.disk.totalBytes).toBeGreaterThan(0);
    expect(status.agentRssBytes / 2 ** 20).toBeCloseTo(agent.rssMib(), -2);
    expect(status.processes).toBeGreaterThan(1);
    expect(Math.abs(status.unixMs - Date.now())).toBeLessThan(10_000 * SCALE);
    expect(status).toMatchObject({
      execs: 0,
      load: [expect.any(Number), expect.any(Number), expect.any(Number)],
    });
  });

  it('serves several sessions at once, each with its own execs', async () => {
    const others = await Promise.all(Array.from({ length: 8 }, () => agent.connect()));
    const results = await Promise.all(
      others.map(async (other, i) => resultOf(await other.exec({ argv: ['echo', String(i)] }))),
    );
    expect(results.map(({ stdout }) => stdout)).toEqual(others.map((_, i) => `${i}\n`));
    await Promise.all(others.map((other) => other.close()));
  });

  it('runs many at once in one session', async () => {
    const many = Array.from({ length: 40 }, async (_, i) =>
      resultOf(await session.exec({ argv: ['echo', String(i)] })),
    );
    const results = await Promise.all(many);
    expect(results.map(({ stdout }) => stdout)).toEqual(many.map((_, i) => `${i}\n`));
  });
});

describe('an exec belongs to the agent', () => {
  it('is listed while it runs, and for a while afterwards', async () => {
    const spec = { ...sh('read x; exit 3'), stdin: true, tag: 'listed', env: { SECRET: 'hidden' } };
    const exec = await session.exec(spec);
    const find = async () => (await session.list()).find(({ id }) => id === exec.id);
    const running = await find();
    expect(running).toMatchObject({
      ...{ pid: exec.pid, command: spec.argv, tag: 'listed', running: true },
      startedAtMs: expect.closeTo(Date.now(), -5) as unknown,
    });
    expect(JSON.stringify(running)).not.toContain('hidden');
    exec.stdin!.end('\n');
    await resultOf(exec);
    expect(await find()).toMatchObject({ running: false, exit: { exitCode: 3 } });
  });

  it('outlives its session, and is taken up with all that was missed', async () => {
    const first = await agent.connect();
    const exec = await first.exec({ ...sh('echo early; read x; echo late $x'), stdin: true });
    await read(exec, 6);
    await first.close();
    await expect(exec.exit).rejects.toMatchObject({ code: 'ERR_GUEST_DISCONNECTED' });
    const taken = await session.attach(exec.id);
    expect(taken).toMatchObject({ id: exec.id, pid: exec.pid, stdin: undefined });
    await session.writeStdin(exec.id, Buffer.from('friend\n'));
    expect(await resultOf(taken)).toMatchObject({ stdout: 'early\nlate friend\n', exitCode: 0 });
    expect(await resultOf(await session.attach(exec.id))).toMatchObject({
      ...{ stdout: 'early\nlate friend\n', exitCode: 0, truncatedBytes: 0 },
    });
  });

  it('goes on when its reader is gone, however much it prints', async () => {
    const bytes = 128 * 1024 * 1024;
    const exec = await session.exec({
      ...sh(`head -c ${bytes} /dev/zero; echo end`),
      replayBytes: 100_000,
    });
    await read(exec, 1);
    await exec.detach();
    const before = agent.rssMib();
    await vi.waitFor(
      async () => {
        const [info] = (await session.list()).filter(({ id }) => id === exec.id);
        expect(info).toMatchObject({ running: false });
      },
      { interval: 50, timeout: 20_000 * SCALE },
    );
    const { stdout, truncatedBytes, exitCode } = await resultOf(await session.attach(exec.id));
    expect(truncatedBytes + stdout.length).toBe(bytes + 4);
    expect(stdout.length).toBeGreaterThan(4);
    expect(stdout.length).toBeLessThanOrEqual(100_000);
    expect(stdout).toMatch(/^\0*end\n$/);
    expect(exitCode).toBe(0);
    expect(agent.rssMib() - before).toBeLessThan(64);
  });

  it('tells several who listen the same, in the same order', async () => {
    const exec = await session.exec({
      ...sh('read x; for i in $(seq 5000); do echo $i; done'),
      stdin: true,
    });
    const other = await agent.connect();
    const listeners = await Promise.all([other.attach(exec.id), session.attach(exec.id)]);
    exec.stdin!.end('\n');
    const results = await Promise.all([exec, ...listeners].map(resultOf));
    expect(new Set(results.map(({ stdout }) => stdout)).size).toBe(1);
    expect(results[0]!.stdout).toMatch(/^1\n2\n[^]*\n5000\n$/);
    await other.close();
  });

  it('takes no memory beyond the limit of all, finished ones first', async () => {
    const before = agent.rssMib();
    const spec = { argv: ['head', '-c', String(16 * 1024 * 1024), '/dev/zero'] };
    const ids: string[] = [];
    for (let i = 0; i < 8; i += 1) {
      const exec = await session.exec({ ...spec, replayBytes: 16 * 1024 * 1024 });
      for await (const piece of exec.output) void piece;
      ids.push(exec.id);
    }
    const kept = await Promise.all(
      ids.map(async (id) => (await resultOf(await session.attach(id))).stdout.length),
    );
    expect(kept[0]).toBe(0);
    expect(kept.at(-1)).toBeGreaterThan(15 * 1024 * 1024);
    expect(kept.reduce((sum, bytes) => sum + bytes, 0)).toBeLessThanOrEqual(64 * 1024 * 1024);
    expect(agent.rssMib() - before).toBeLessThan(160);
  });

  it('is forgotten when many others have ended since', async () => {
    const first = await session.exec({ argv: ['true'] });
    await resultOf(first);
    for (let i = 0; i < 128; i += 1) await resultOf(await session.exec({ argv: ['true'] }));
    await expect(session.attach(first.id)).rejects.toMatchObject({ guestCode: 'ENOEXEC_ID' });
    await expect(session.signal(first.id, 'SIGTERM')).rejects.toMatchObject({
      guestCode: 'ENOEXEC_ID',
    });
    expect((await session.list()).length).toBeLessThanOrEqual(128);
  });
});

describe('a session', () => {
  it('ends when it is closed: what waits hears of it, and so does the event stream', async () => {
    const seen: SystemEvent[] = [];
    const unsubscribe = events.subscribe((event) => seen.push(event));
    const own = await agent.connect({ vmId: 'closing' });
    const exec = await own.exec({ argv: ['sleep', '600'], onDisconnect: 'kill' });
    const [output, ping] = [resultOf(exec), own.ping()].map((call) =>
      call.then(String, (error: GuestError) => error.code),
    );
    await own.close();
    expect(await output).toBe('ERR_GUEST_DISCONNECTED');
    expect(await ping).toMatch(/^(ERR_GUEST_DISCONNECTED|[\d.]+)$/); // it may be answered in time
    await expect(own.closed).resolves.toBeUndefined();
    await expect(own.list()).rejects.toMatchObject({ code: 'ERR_GUEST_DISCONNECTED' });
    await own.close();
    unsubscribe();
    expect(seen.filter(({ vmId }) => vmId === 'closing').map(({ type }) => type)).toEqual([
      ...['guest.connected', 'exec.started', 'guest.disconnected'],
    ]);
  });

  it('gives up on a call when its time is over, or its signal says so', async () => {
    agent.process.kill('SIGSTOP');
    try {
      await expect(session.status({ timeoutMs: 100 })).rejects.toMatchObject({
        ...{ code: 'ERR_TIMEOUT', operation: 'GET /status', timeoutMs: 100 },
      });
      await expect(session.ping({ timeoutMs: 100 })).rejects.toMatchObject({ code: 'ERR_TIMEOUT' });
      const reason = new Error('enough');
      const controller = new AbortController();
      const waiting = session.exec({ argv: ['true'] }, { signal: controller.signal });
      controller.abort(reason);
      await expect(waiting).rejects.toBe(reason);
    } finally {
      agent.process.kill('SIGCONT');
    }
    expect(await session.ping()).toBeGreaterThan(0);
  });

  it('ends when the agent does not answer any more while somebody waits for an exec', async () => {
    const own = await agent.connect({ keepAliveMs: 200 * SCALE });
    const exec = await own.exec({ argv: ['sleep', '600'], onDisconnect: 'kill' });
    agent.process.kill('SIGSTOP');
    try {
      await expect(exec.exit).rejects.toThrow(/did not answer within/);
    } finally {
      agent.process.kill('SIGCONT');
    }
    await own.close();
  });

  it('is not opened where nobody listens, or by a signal that is over', async () => {
    const target = { kind: 'unix', path: `${agent.target.path}.none` } as const;
    const { GuestSession: Session } = await import('../../../src/guest/index.ts');
    await expect(Session.connect(target, { vmId: 'none', timeoutMs: 100 })).rejects.toMatchObject({
      code: 'ERR_TIMEOUT',
      vmId: 'none',
    });
    await expect(
      Session.connect(target, { vmId: 'none', timeoutMs: 100, signal: AbortSignal.abort('no') }),
    ).rejects.toBe('no');
    await expect(
      Session.connect({ kind: 'unix', path: '/dev/null' }, { vmId: 'none', timeoutMs: 5000 }),
    ).rejects.toMatchObject({
      code: expect.stringMatching(/ERR_(GUEST_CONNECT|TIMEOUT)/) as unknown,
    });
  });
});

it('an agent that is started anew says so: pid and ids are others', async () => {
  await using first = await LocalAgent.start();
  const before = await first.connect();
  const { id } = await before.exec({ argv: ['true'] });
  first.process.kill('SIGKILL');
  await once(first.process, 'exit');
  await expect(before.closed).resolves.toMatchObject({ code: 'ERR_GUEST_DISCONNECTED' });
  await expect(session.attach(id)).rejects.toMatchObject({ guestCode: 'ENOEXEC_ID' });
});
