/** What an exec does, on the real agent. Cgroups and users by name are for the e2e tests. */
import { execFileSync } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import type { ExecSpec } from '../../../guest-agent/protocol.ts';
import type { GuestSession } from '../../../src/guest/index.ts';
import { LocalAgent, resultOf } from './local-agent.ts';
import { SCALE } from '../../scale.ts';

let agent: LocalAgent;
let session: GuestSession;
let dir: string;
beforeAll(async () => {
  agent = await LocalAgent.start();
  session = await agent.connect();
  dir = await mkdtemp(join(tmpdir(), 'qmp-agent-exec-'));
});
afterAll(async () => {
  await session.close();
  await agent[Symbol.asyncDispose]();
  await rm(dir, { recursive: true, force: true });
});

/** The shell is a login shell; what the host's root has in its profile is none of our business. */
const start = (spec: ExecSpec) => session.exec({ ...spec, env: { HOME: dir, ...spec.env } });
const run = async (spec: ExecSpec) => resultOf(await start(spec));
const isAlive = (pid: number) => existsSync(`/proc/${pid}`) && !isZombie(pid);
const isZombie = (pid: number) => /^State:\tZ/m.test(readFileSync(`/proc/${pid}/status`, 'latin1'));
const isRoot = process.getuid!() === 0;

/** Bytes that a process has written so far, by the kernel's count (proc(5), /proc/PID/io). */
const writtenBytes = (pid: number) =>
  Number(/^wchar: (\d+)/m.exec(readFileSync(`/proc/${pid}/io`, 'latin1'))![1]);

describe('a start that may be held', () => {
  it('comes with the end of a short command, and soon of a long one', async () => {
    expect(await run({ argv: ['true'], holdStart: true })).toMatchObject({ exitCode: 0 });
    const begun = performance.now();
    const exec = await start({ argv: ['sleep', '600'], holdStart: true });
    expect(performance.now() - begun).toBeLessThan(10_000 * SCALE);
    expect(isAlive(exec.pid)).toBe(true);
    await exec.kill();
    expect((await exec.exit).signal).toBe('SIGKILL');
  });

  it('comes before the first output, which does not wait', async () => {
    const shell = 'echo now; exec sleep 600';
    const exec = await start({ shell, holdStart: true });
    for await (const piece of exec.output) {
      expect(piece).toMatchObject({ stream: 'stdout', data: Buffer.from('now\n') });
      break;
    }
    await exec.kill();
  });

  it('leaves no gap where nothing is kept for replay', async () => {
    const spec = { shell: 'echo lost?', replayBytes: 0, holdStart: true };
    expect(await run(spec)).toMatchObject({ stdout: 'lost?\n', exitCode: 0 });
  });

  it('is not needed to end the command', async () => {
    const marker = join(dir, 'ended-before-it-had-a-name');
    const over = AbortSignal.timeout(20);
    const spec = { shell: `sleep 1; touch ${marker}`, holdStart: true };
    await expect(session.exec(spec, { signal: over })).rejects.toThrow();
    await vi.waitFor(
      async () => expect((await session.list()).some((e) => e.running)).toBe(false),
      {
        timeout: 5_000 * SCALE,
      },
    );
    expect(existsSync(marker)).toBe(false);
  });
});

describe('what is run', () => {
  it('is argv, without a shell between', async () => {
    const argv = ['printf', '%s|', 'a b', '$HOME', '*', '', "it's"];
    expect(await run({ argv })).toMatchObject({
      ...{ stdout: "a b|$HOME|*||it's|", stderr: '' },
      ...{ exitCode: 0, timedOut: false },
    });
  });

  it('or a line for a shell', async () => {
    const result = await run({ shell: 'echo out; echo err >&2; exit $((3 + 4))' });
    expect(result).toMatchObject({ stdout: 'out\n', stderr: 'err\n', exitCode: 7 });
  });

  it('in its directory, with its environment', async () => {
    const spec = { shell: 'pwd; echo "$A|$B"', cwd: dir, env: { A: '1', B: 'two\nlines' } };
    expect((await run(spec)).stdout).toBe(`${dir}\n1|two\nlines\n`);
  });

  it('whatever signs the spec is made of, short or long', async () => {
    for (const repeats of [1, 600, 2_000]) {
      const text = 'ä€😀\u007f\u2028"\\\n\t~'.repeat(repeats);
      const { stdout } = await run({ argv: ['printf', '%s', text] });
      expect(Buffer.from(stdout, 'latin1').toString()).toBe(text);
    }
  });

  it('without anything of the agent’s own', async () => {
    const { stdout: descriptors } = await run({ argv: ['ls', '/proc/self/fd'] });
    // The same as of any process: what the test runner itself has inherited, too.
    expect(descriptors).toBe(execFileSync('ls', ['/proc/self/fd'], { encoding: 'latin1' }));
    const { stdout: environment } = await run({ argv: ['env'] });
    expect(environment).not.toMatch(/^(npm_|VITEST|NODE_|QMP_AGENT_TEST)/m);
  });

  it('in a session of its own, with /dev/null for stdin', async () => {
    const exec = await session.exec({
      argv: ['sh', '-c', 'readlink /proc/self/fd/0; cut -d" " -f6 /proc/$$/stat'],
    });
    expect((await resultOf(exec)).stdout).toBe(`/dev/null\n${exec.pid}\n`);
  });

  it('can open its output by name', async () => {
    const shell = 'echo out >/dev/stdout; echo err >/dev/stderr';
    expect(await run({ shell })).toMatchObject({ stdout: 'out\n', stderr: 'err\n', exitCode: 0 });
  });

  it('as another user', async ({ skip }) => {
    if (!isRoot) skip('only root can become somebody else');
    const { stdout } = await run({ argv: ['id'], user: '4711', cwd: '/' });
    expect(stdout).toMatch(/^uid=4711 gid=4711 groups=4711\n$/);
  });
});

describe('what cannot be run is refused, and named', () => {
  beforeAll(async () => {
    await writeFile(join(dir, 'plain'), 'text');
    await writeFile(join(dir, 'odd'), '#!/no/such/interpreter\n');
    await chmod(join(dir, 'odd'), 0o755);
  });

  it.each<[string, () => ExecSpec, string]>([
    ['no such program', () => ({ argv: ['no-such-program'] }), 'ENOENT'],
    ['no such path', () => ({ argv: ['/no/such'] }), 'ENOENT'],
    ['not executable', () => ({ argv: [join(dir, 'plain')] }), 'EACCES'],
    ['a directory', () => ({ argv: ['/'] }), 'EACCES'],
    ['an interpreter that is not there', () => ({ argv: [join(dir, 'odd')] }), 'ENOENT'],
    ['no such directory', () => ({ argv: ['true'], cwd: '/no/such' }), 'ENOENT'],
    ['a file for a directory', () => ({ argv: ['true'], cwd: join(dir, 'plain') }), 'ENOTDIR'],
    ['no such user', () => ({ argv: ['true'], user: 'no-such-user' }), 'EUSER'],
    ['an argument of 256 KiB', () => ({ argv: ['true', 'x'.repeat(256 * 1024)] }), 'E2BIG'],
    ['neither argv nor shell', () => ({}), 'EINVAL'],
  ])('%s', async (_what, spec, guestCode) => {
    await expect(session.exec(spec())).rejects.toMatchObject({
      code: 'ERR_GUEST_REQUEST',
      guestCode,
    });
    expect(await run({ argv: ['true'] })).toMatchObject({ exitCode: 0 });
  });

  it('although its stdin stays open', async () => {
    const refused = session.exec({ argv: ['no-such-program'], stdin: true });
    await expect(refused).rejects.toMatchObject({ guestCode: 'ENOENT' });
  });

  it('a spec larger than its limit, already on this side', async () => {
    const spec = { argv: Array<string>(20).fill('x'.repeat(60_000)) };
    await expect(session.exec(spec)).rejects.toMatchObject({ code: 'ERR_CONFIG' });
  });
});

describe('stdin', () => {
  it('goes through to the end, byte by byte', async () => {
    const exec = await session.exec({ argv: ['cat'], stdin: true });
    const input = randomBytes(64 * 1024 * 1024);
    const hash = createHash('sha256');
    exec.stdin!.end(input);
    for await (const piece of exec.output) if ('data' in piece) hash.update(piece.data);
    expect(hash.digest('hex')).toBe(createHash('sha256').update(input).digest('hex'));
    expect(await exec.exit).toMatchObject({ exitCode: 0 });
  });

  it('keeps short lines apart in time: each is answered before the next is sent', async () => {
    const exec = await session.exec({ argv: ['cat'], stdin: true });
    const output = exec.output[Symbol.asyncIterator]();
    for (const line of ['one', 'two', 'three']) {
      exec.stdin!.write(line);
      expect(await output.next()).toMatchObject({ value: { data: Buffer.from(line) } });
    }
    exec.stdin!.end();
    expect(await output.next()).toMatchObject({ done: true });
  });

  it('may be left open by us, or unread by the command', async () => {
    const open = await session.exec({ argv: ['true'], stdin: true });
    expect(await resultOf(open)).toMatchObject({ exitCode: 0 });
    const unread = await start({ shell: 'exec <&-; echo done', stdin: true });
    unread.stdin!.on('error', () => undefined);
    for (let i = 0; i < 64; i += 1) unread.stdin!.write(Buffer.alloc(64 * 1024));
    expect(await resultOf(unread)).toMatchObject({ stdout: 'done\n', exitCode: 0 });
  });

  it('holds the writer back as long as nobody reads it', async () => {
    const exec = await session.exec({ argv: ['sleep', '600'], stdin: true });
    const before = agent.rssMib();
    let accepted = 0;
    const chunk = Buffer.alloc(64 * 1024);
    while (exec.stdin!.write(chunk)) accepted += chunk.length;
    let drained = false;
    exec.stdin!.once('drain', () => (drained = true));
    // What fits on the way flows; then it stands still.
    for (let round = 0; round < 50; round += 1) await session.ping();
    if (drained) while (exec.stdin!.write(chunk)) accepted += chunk.length;
    expect(accepted).toBeLessThan(8 * 1024 * 1024);
    expect(agent.rssMib() - before).toBeLessThan(32);
    await exec.kill();
    expect(await resultOf(exec)).toMatchObject({ signal: 'SIGKILL' });
  });

  it('can be written from elsewhere, and closed', async () => {
    const exec = await session.exec({ argv: ['cat'], stdin: true });
    await session.writeStdin(exec.id, Buffer.from('from elsewhere'));
    await session.writeStdin(exec.id, Buffer.from('!'), { eof: true });
    expect(await resultOf(exec)).toMatchObject({ stdout: 'from elsewhere!', exitCode: 0 });
    await expect(session.writeStdin(exec.id, Buffer.from('late'))).rejects.toMatchObject({
      guestCode: 'EPIPE',
    });
  });
});

describe('output', () => {
  it('holds the command back as long as nobody reads it', async () => {
    const bytes = 256 * 1024 * 1024;
    const before = agent.rssMib();
    const exec = await session.exec({ argv: ['head', '-c', String(bytes), '/dev/zero'] });
    let written = -1;
    await vi.waitFor(
      () => {
        const now = writtenBytes(exec.pid);
        const stands = now === written && now > 0;
        written = now;
        expect(stands).toBe(true);
      },
      { interval: 300, timeout: 20_000 * SCALE },
    );
    expect(written).toBeLessThan(8 * 1024 * 1024);
    let read = 0;
    for await (const piece of exec.output) if ('data' in piece) read += piece.data.length;
    expect(read).toBe(bytes);
    expect(await exec.exit).toMatchObject({ exitCode: 0 });
    expect(agent.rssMib() - before).toBeLessThan(48);
  });

  it('of one command that nobody reads does not hold up others', async () => {
    const unread = await session.exec({ argv: ['yes'] });
    const { stdout } = await run({ argv: ['echo', 'not held up'] });
    expect(stdout).toBe('not held up\n');
    await unread.kill();
    await unread.detach();
  });

  it('is complete where the command leaves a process in the background', async () => {
    const { stdout, exitCode } = await run({ shell: 'sleep 600 & echo $!' });
    expect(exitCode).toBe(0);
    const pid = Number(stdout);
    expect(isAlive(pid)).toBe(true);
    process.kill(pid, 'SIGKILL');
  });
});

describe('the end', () => {
  /** A daemon as they are made: two forks, a session of its own, nothing of its parent's. */
  const daemon = (file: string) =>
    `setsid sh -c 'sleep 600 <&- >&- 2>&- & echo $! > ${file}' <&- >&- 2>&- & `;

  it.each<[string, Partial<ExecSpec>]>([
    ['a timeout', { timeoutMs: 1000 }],
    ['a kill', {}],
    ['the loss of its stream', { onDisconnect: 'kill' }],
  ])('by %s reaches daemons too', async (how, extra) => {
    const file = join(dir, how.replaceAll(' ', '-'));
    const shell = `${daemon(file)} while [ ! -s ${file} ]; do sleep 0.01; done; echo up; sleep 600`;
    const exec = await start({ shell, ...extra });
    const output = exec.output[Symbol.asyncIterator]();
    expect(await output.next()).toMatchObject({ value: { data: Buffer.from('up\n') } });
    const pid = Number(readFileSync(file, 'latin1'));
    expect(isAlive(pid)).toBe(true);
    if (how === 'a kill') await exec.kill();
    if (how === 'the loss of its stream') await exec.detach();
    else {
      expect(await output.next()).toMatchObject({ done: true });
      expect(await exec.exit).toMatchObject({
        signal: 'SIGKILL',
        timedOut: how === 'a timeout',
      });
    }
    await vi.waitFor(() => expect([pid, exec.pid].filter(isAlive)).toEqual([]), {
      timeout: 5000 * SCALE,
    });
  });

  it('by a signal to the group leaves daemons alone, as a terminal does', async () => {
    const file = join(dir, 'group');
    const shell = `${daemon(file)} while [ ! -s ${file} ]; do sleep 0.01; done; echo up; sleep 600`;
    const exec = await start({ shell });
    const output = exec.output[Symbol.asyncIterator]();
    await output.next();
    await session.signal(exec.id, 'SIGTERM');
    expect(await exec.exit).toMatchObject({ signal: 'SIGTERM', timedOut: false });
    const pid = Number(readFileSync(file, 'latin1'));
    expect(isAlive(pid)).toBe(true);
    process.kill(pid, 'SIGKILL');
  });

  it('is the command’s own where it handles the signal', async () => {
    const exec = await start({
      shell: 'trap "exit 42" INT; echo up; while :; do sleep 0.01; done',
    });
    const output = exec.output[Symbol.asyncIterator]();
    await output.next();
    await session.signal(exec.id, 'SIGINT');
    expect(await exec.exit).toMatchObject({ exitCode: 42 });
    await expect(session.signal(exec.id, 'NOSIG')).rejects.toMatchObject({ guestCode: 'EINVAL' });
  });

  it('of a call that is given up before it began is the end of the process', async () => {
    const file = join(dir, 'given-up');
    const controller = new AbortController();
    const call = session.exec(
      { argv: ['sh', '-c', `echo $$ > ${file}; sleep 600`] },
      { signal: controller.signal },
    );
    controller.abort(new Error('given up'));
    await expect(call).rejects.toThrow('given up');
    await vi.waitFor(
      async () => {
        const running = (await session.list()).filter(
          ({ running, command }) => running && command[2]?.includes(file),
        );
        expect(running).toEqual([]);
      },
      { timeout: 5000 * SCALE },
    );
  });
});

it('leaves no descriptor, pipe or process behind in the agent', async () => {
  const some = async () => {
    await run({ argv: ['true'] });
    await session.exec({ argv: ['no-such-program'] }).catch(() => undefined);
    const killed = await session.exec({ argv: ['sleep', '600'], stdin: true });
    await killed.kill();
    await resultOf(killed);
  };
  /** Of the agent, with the processes that wait for commands to come: those are there a moment later. */
  const descriptors = async () => {
    let last = -1;
    await vi.waitFor(
      () => {
        const before = last;
        last = readdirSync(`/proc/${agent.process.pid}/fd`).length;
        expect(last).toBe(before);
      },
      { interval: 500, timeout: 5000 * SCALE },
    );
    return last;
  };
  await some();
  const before = await descriptors();
  for (let i = 0; i < 30; i += 1) await some();
  expect(await descriptors()).toBeLessThan(before + 10);
});

it('ends with its agent: what waits hears of it', async () => {
  await using doomed = await LocalAgent.start();
  const lost = await doomed.connect();
  const exec = await lost.exec({ argv: ['sleep', '600'], stdin: true });
  doomed.process.kill('SIGKILL');
  await once(doomed.process, 'exit');
  await expect(exec.exit).rejects.toMatchObject({ code: 'ERR_GUEST_DISCONNECTED' });
  await expect(resultOf(exec)).rejects.toMatchObject({ code: 'ERR_GUEST_DISCONNECTED' });
  await expect(lost.status()).rejects.toMatchObject({ code: 'ERR_GUEST_DISCONNECTED' });
  await expect(lost.closed).resolves.toMatchObject({ code: 'ERR_GUEST_DISCONNECTED' });
  process.kill(exec.pid, 'SIGKILL');
});
