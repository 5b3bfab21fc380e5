import { describe, expect, it } from 'vitest';
import { ConfigError, NotFoundError, StateError, TimeoutError } from '../../../../src/errors.ts';
import { failureOf } from '../state.ts';
import { SOON_MS, type VmOfTest } from './guest.ts';
import { SCALE } from '../../../scale.ts';

/** Handles on commands that run in the background. */
export function describeBackground(vm: VmOfTest): void {
  /** Starts a shell line in the background. */
  const start = (command: string, stdin = false) =>
    vm().commands.run(command, { background: true, stdin, timeoutMs: 0 });

  describe('a command in the background', () => {
    it('has a pid, shows its output so far, and is waited for', async () => {
      const handle = await start('echo one; read -r line; echo "two $line"; exit 3', true);
      await expect.poll(() => handle.stdout, { timeout: SOON_MS }).toBe('one\n');
      expect(handle.exitCode).toBeUndefined();
      const waiting = failureOf(handle.wait());
      await handle.sendStdin('now\n');
      expect(await waiting).toMatchObject({ exitCode: 3, result: { stdout: 'one\ntwo now\n' } });
      expect(handle).toMatchObject({ exitCode: 3, stdout: 'one\ntwo now\n' });
      expect(await handle.wait({ reject: false })).toMatchObject({ exitCode: 3 });
      expect(await handle.kill()).toBe(false);
      await handle.sendStdin('nobody reads this');
      await handle.closeStdin();
    });

    it('is listed while it runs, and killed by its pid', async () => {
      const handle = await vm().commands.run(['sleep', '616'], {
        background: true,
        tag: 'nap',
        cwd: '/tmp',
        timeoutMs: 0,
      });
      const listed = await vm().commands.list();
      expect(listed).toEqual([
        {
          pid: handle.pid,
          tag: 'nap',
          cmd: 'sleep',
          args: ['616'],
          cwd: '/tmp',
          user: 'agent',
          startedAt: expect.any(Date),
        },
      ]);
      expect(Math.abs(Number(listed[0]?.startedAt) - Date.now())).toBeLessThan(60_000 * SCALE);
      expect(await vm().commands.kill(handle.pid)).toBe(true);
      expect(await handle.wait({ reject: false })).toMatchObject({ signal: 'SIGKILL' });
      expect(await vm().commands.list()).toEqual([]);
      expect(await vm().commands.kill(handle.pid)).toBe(false);
      expect(await vm().commands.kill(4_000_000)).toBe(false);
    });

    it('gets another signal, and may deal with it', async () => {
      const handle = await start(
        'trap "echo caught; exit 0" TERM; echo ready; while :; do sleep 0.1; done',
      );
      await expect.poll(() => handle.stdout, { timeout: SOON_MS }).toBe('ready\n');
      expect(await handle.kill('SIGTERM')).toBe(true);
      expect((await handle.wait()).stdout).toBe('ready\ncaught\n');
    });

    it('is written to by pid, and its stdin closed', async () => {
      const handle = await start('cat', true);
      await vm().commands.sendStdin(handle.pid, 'by pid ');
      await vm().commands.sendStdin(handle.pid, Buffer.from('and bytes'));
      await vm().commands.closeStdin(handle.pid);
      expect((await handle.wait()).stdout).toBe('by pid and bytes');
      for (const call of [
        () => vm().commands.sendStdin(handle.pid, 'x'),
        () => vm().commands.closeStdin(handle.pid),
        () => vm().commands.connect(handle.pid),
      ]) {
        const error = await failureOf(call());
        expect(error).toBeInstanceOf(NotFoundError);
        expect(error).toMatchObject({ kind: 'exec', query: String(handle.pid), vmId: vm().id });
      }
      expect(await failureOf(vm().commands.sendStdin(0, 'x'))).toBeInstanceOf(ConfigError);
    });

    it('without a stdin says so', async () => {
      const handle = await start('sleep 617');
      expect(await failureOf(handle.sendStdin('x'))).toBeInstanceOf(StateError);
      expect(await failureOf(handle.closeStdin())).toBeInstanceOf(StateError);
      const error = await failureOf(vm().commands.sendStdin(handle.pid, 'x'));
      expect(error).toMatchObject({ name: 'GuestRequestError', guestCode: 'EPIPE' });
      await handle.kill();
      await handle.wait({ reject: false });
    });

    it('is waited for within bounds, which do not touch it', async () => {
      const handle = await start('sleep 618');
      expect(await failureOf(handle.wait({ timeoutMs: 50 }))).toBeInstanceOf(TimeoutError);
      const reason = new Error('no more');
      const signal = AbortSignal.abort(reason);
      expect(await failureOf(handle.wait({ signal }))).toBe(reason);
      expect(await vm().commands.list()).toHaveLength(1);
      expect(await handle.kill()).toBe(true);
      await handle.wait({ reject: false });
    });

    it('has a timeout too', async () => {
      const handle = await vm().commands.run('sleep 619', {
        background: true,
        timeoutMs: 1_000 * SCALE,
      });
      expect(await handle.wait({ reject: false })).toMatchObject({ timedOut: true });
    });

    it('is connected to by several, who hear all of it', async () => {
      const handle = await start('echo one; read -r line; echo "$line"', true);
      await expect.poll(() => handle.stdout, { timeout: SOON_MS }).toBe('one\n');
      const heard: string[] = [];
      const other = await vm().commands.connect(handle.pid, {
        onStdout: (data) => void heard.push(data),
      });
      expect(other.pid).toBe(handle.pid);
      await other.sendStdin('two\n');
      expect((await other.wait()).stdout).toBe('one\ntwo\n');
      expect((await handle.wait()).stdout).toBe('one\ntwo\n');
      expect(heard.join('')).toBe('one\ntwo\n');
    });

    it('runs on when nobody listens, and is connected to again', async () => {
      const handle = await start('echo one; read -r line; echo "$line"; sleep 620', true);
      await expect.poll(() => handle.stdout, { timeout: SOON_MS }).toBe('one\n');
      await handle.disconnect();
      await handle.disconnect();
      expect(await failureOf(handle.wait())).toMatchObject({
        name: 'StateError',
        actual: 'disconnected',
      });
      await vm().commands.sendStdin(handle.pid, 'two\n');
      const again = await vm().commands.connect(handle.pid);
      await expect.poll(() => again.stdout, { timeout: SOON_MS }).toBe('one\ntwo\n');
      expect(handle.stdout).toBe('one\n');
      // The first handle does not listen, but it still knows whom to kill.
      expect(await handle.kill()).toBe(true);
      expect(await again.wait({ reject: false })).toMatchObject({ signal: 'SIGKILL' });
      expect(await handle.kill()).toBe(false);
    });

    it('that wrote more than the agent keeps is replayed from where it can be', async () => {
      const handle = await start('seq 1 400000; read -r line', true);
      await expect.poll(() => handle.stdout.length, { timeout: SOON_MS }).toBe(2_688_895);
      const late = await vm().commands.connect(handle.pid);
      await vm().commands.closeStdin(handle.pid);
      const result = await late.wait({ reject: false });
      expect(result.truncated).toBe(true);
      expect(result.stdout).toMatch(/^\[… \d+ bytes truncated …\]\n/);
      expect(result.stdout.endsWith('\n399999\n400000\n')).toBe(true);
      await handle.wait({ reject: false });
    });
  });
}
