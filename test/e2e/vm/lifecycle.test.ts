/** A VM that stays, in the hands of several processes at once. */
import { mkdir, rm, writeFile } from 'node:fs/promises';
import { createServer, type Server } from 'node:net';
import { join } from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import {
  HostError,
  NotFoundError,
  StateError,
  TimeoutError,
  VmDiedError,
} from '../../../src/errors.ts';
import { findQemus } from '../../../src/vm/gc.ts';
import { vmPaths } from '../../../src/vm/vm-paths.ts';
import { Vm } from '../../../src/vm/vm.ts';
import { qmpAgent } from '../../integration/cli/command.ts';
import { expectNothingLeft } from '../cli/host.ts';
import { BOOT_MS, failureOf, qemuPid, useTestState } from './state.ts';
import { SCALE } from '../../scale.ts';

/** What needs no guest. */
const SOON_MS = 5_000 * SCALE;
/** One command line, from Node's start to its end. */
const COMMAND_MS = 20_000 * SCALE;

/** Who has no event stream asks QEMU every two seconds. */
const AGENT_GONE_MS = 6_000 * SCALE;

const state = useTestState();
let vm: Vm;
beforeAll(async () => {
  vm = await state.create({ persistent: true, name: 'box' });
});
const files = () => vmPaths(state.paths, vm.id);

/** Another process. */
const cli = (...args: string[]) =>
  qmpAgent([args[0] ?? '', '--log-level', 'error', ...args.slice(1)], {
    env: state.box.env,
    timeoutMs: BOOT_MS,
  });

function listenOn(path: string): Promise<Server> {
  return new Promise((resolve, reject) => {
    const server = createServer().once('error', reject);
    server.listen(path, () => resolve(server));
  });
}

describe('several processes', () => {
  it('find it, and see the same', async () => {
    const info = await vm.info();
    expect(info).toMatchObject({ name: 'box', state: 'running', persistent: true });
    for (const name of ['box', vm.id, vm.id.slice(0, 6)]) {
      await using other = await Vm.connect(name, state);
      expect(await other.info()).toEqual(info);
    }
    const [seen] = JSON.parse(String((await cli('list', '--json')).stdout)) as unknown[];
    expect(seen).toEqual(JSON.parse(JSON.stringify(info)));
    expect(await failureOf(Vm.connect('nobody', state))).toBeInstanceOf(NotFoundError);
  });

  it('run commands in it, more than it has channels', async () => {
    await vm.commands.run('true'); // this process holds a channel, too
    const numbers = [1, 2, 3, 4, 5, 6];
    const results = await Promise.all(
      numbers.map((n) => cli('exec', 'box', '--', 'sh', '-c', `echo ${n}; sleep 1; exit ${n}`)),
    );
    expect(results.map(({ stdout, exitCode, stderr }) => [stdout, exitCode, stderr])).toEqual(
      numbers.map((n) => [String(n), n, '']),
    );
  });

  it('see commands that others started, and end them', async () => {
    const handle = await vm.commands.run('sleep 900', { background: true, timeoutMs: 0 });
    await using other = await Vm.connect('box', state);
    expect(await other.commands.list()).toMatchObject([{ pid: handle.pid, user: 'agent' }]);
    expect(await other.commands.kill(handle.pid)).toBe(true);
    expect(await handle.wait({ reject: false })).toMatchObject({ signal: 'SIGKILL' });
  });

  it('are told when its agent dies, and find the next', async () => {
    const pending = failureOf(vm.commands.run('sleep 902', { timeoutMs: 0 }));
    await expect.poll(() => vm.commands.list(), { timeout: SOON_MS }).toHaveLength(1);
    const startedAt = performance.now();
    await vm.commands.run('kill -9 $(pgrep -x qmp-agent)', { user: 'root', reject: false }).catch(
      () => undefined, // it dies while it carries that out
    );
    expect(await pending).toMatchObject({ code: 'ERR_GUEST_DISCONNECTED', vmId: vm.id });
    expect(performance.now() - startedAt).toBeLessThan(AGENT_GONE_MS);
    const again = await vm.commands.run('echo back', { requestTimeoutMs: BOOT_MS });
    expect(again.stdout).toBe('back\n');
  });

  it('pause and resume it', async () => {
    expect((await cli('pause', 'box')).exitCode).toBe(0);
    expect((await vm.info()).state).toBe('paused');
    expect(await failureOf(vm.commands.run('true'))).toBeInstanceOf(StateError);
    expect(await failureOf(vm.pause())).toMatchObject({
      code: 'ERR_STATE',
      actual: 'paused',
      required: ['running'],
      hint: expect.stringContaining('resume'),
    });
    expect((await cli('resume', 'box')).exitCode).toBe(0);
    // A command line has no session that is open: the clock is set by the one that resumes.
    const { stdout } = await vm.commands.run('date +%s');
    expect(Math.abs(Number(stdout) - Date.now() / 1_000)).toBeLessThan(2 * SCALE);
    expect(await failureOf(vm.resume())).toMatchObject({ actual: 'running', required: ['paused'] });
  });

  it('stop it at once, and one of them while a command of another runs', async () => {
    const pending = failureOf(vm.commands.run('sleep 901', { timeoutMs: 0 }));
    await expect.poll(() => vm.commands.list(), { timeout: SOON_MS }).toHaveLength(1);
    const stops = await Promise.all([cli('stop', 'box'), cli('stop', 'box')]);
    expect(stops.map(({ exitCode, stderr }) => [exitCode, stderr])).toEqual([
      [0, ''],
      [0, ''],
    ]);
    const error = await pending;
    expect(error).toBeInstanceOf(VmDiedError);
    expect(error.message).toMatch(/was shut down/);
    expect(await vm.waitForState('stopped')).toBe('stopped');
  });
});

describe('a VM that does not run', () => {
  it('says so to every call, with what to do', async () => {
    const startedAt = performance.now();
    for (const call of [
      () => vm.commands.run('true'),
      () => vm.commands.list(),
      () => vm.pause(),
      () => vm.resume(),
      () => vm.console(),
    ]) {
      const error = await failureOf(call());
      expect(error).toMatchObject({
        code: expect.stringMatching(/^ERR_(STATE|VM_DIED)$/),
        hint: expect.stringContaining('start'),
      });
    }
    expect(performance.now() - startedAt).toBeLessThan(SOON_MS);
    expect(vm.fault.aborted).toBe(true);
    expect(vm.fault.reason).toBeInstanceOf(VmDiedError);
    await vm.stop();
    await vm.kill();
  });

  it('is waited for within bounds', async () => {
    expect(await vm.waitForState(['running', 'stopped'])).toBe('stopped');
    const error = await failureOf(vm.waitForState('running', { timeoutMs: 200 }));
    expect(error).toBeInstanceOf(TimeoutError);
    expect(error.message).toContain('it is stopped');
    const signal = AbortSignal.abort(new Error('enough'));
    expect((await failureOf(vm.waitForState('running', { signal }))).message).toBe('enough');
  });

  it('is not started where somebody listens on its socket', async () => {
    await mkdir(files().runtimeDir, { recursive: true });
    const server = await listenOn(files().qmpSocketPath);
    const startedAt = performance.now();
    const error = await failureOf(vm.start());
    expect(performance.now() - startedAt).toBeLessThan(SOON_MS);
    expect(error).toBeInstanceOf(HostError);
    expect(error).toMatchObject({ code: 'ERR_HOST_SOCKET', vmId: vm.id });
    expect(error.message).toContain(files().qmpSocketPath);
    expect(vm.state).toBe('stopped');
    expect(await vm.info()).toMatchObject({ state: 'stopped' });
    await new Promise((resolve) => server.close(resolve));
  });

  it('is started by one of two who try, over files that a dead QEMU left', async () => {
    const waiting = vm.waitForState('running', { timeoutMs: BOOT_MS });
    await mkdir(files().runtimeDir, { recursive: true });
    await writeFile(files().qmpSocketPath, '');
    const [mine, other] = await Promise.all([
      vm.start({ timeoutMs: BOOT_MS }).catch((error: Error) => error),
      cli('start', 'box'),
    ]);
    expect(await waiting).toBe('running');
    const refused = mine === undefined ? other.stderr : mine.message;
    expect(other.exitCode).toBe(mine === undefined ? 1 : 0);
    expect(refused).toMatch(/is running, not stopped/);
    expect(await findQemus(vm.id)).toHaveLength(1);
    expect((await vm.commands.run('echo up')).stdout).toBe('up\n');
    expect((await cli('exec', 'box', 'true')).exitCode).toBe(0);
  });
});

describe('its QEMU', () => {
  it('killed by somebody: those who wait are told, and it can be started again', async () => {
    const pid = await qemuPid(vm);
    const other = cli('exec', 'box', '--', 'sh', '-c', 'echo begun; exec sleep 902');
    const mine = failureOf(vm.commands.run('sleep 903', { timeoutMs: 0 }));
    await expect.poll(() => vm.commands.list(), { timeout: COMMAND_MS }).toHaveLength(2);
    process.kill(pid, 'SIGKILL');
    expect(await mine).toMatchObject({ name: 'VmDiedError', code: 'ERR_VM_DIED', vmId: vm.id });
    const result = await other;
    expect(result.exitCode).toBe(125);
    expect(result.stderr).toMatch(/is gone: QEMU ended/);
    expect(await vm.info()).toMatchObject({ state: 'stopped', stateDetail: 'QEMU is gone' });
    expect(await failureOf(vm.commands.run('true'))).toMatchObject({ code: 'ERR_VM_DIED' });
  });

  it('that outlives its record is found, and ended by gc', async () => {
    await vm.start({ timeoutMs: BOOT_MS });
    const pid = await qemuPid(vm);
    await rm(files().dir, { recursive: true });
    const pending = failureOf(vm.commands.run('sleep 904', { timeoutMs: 0 }));
    const reaped = await Vm.gc(state);
    expect(reaped).toContainEqual({ kind: 'process', path: `pid ${pid}` });
    expect(await pending).toBeInstanceOf(VmDiedError);
    expect(await vm.waitForState('removed')).toBe('removed');
    expect(await failureOf(vm.waitForState('running'))).toBeInstanceOf(StateError);
    await rm(join(state.paths.runtimeDir, vm.id), { recursive: true, force: true });
    await expectNothingLeft(state.box);
  });
});
