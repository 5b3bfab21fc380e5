import { describe, expect, it } from 'vitest';
import { CommandExitError, ConfigError, GuestRequestError } from '../../../../src/errors.ts';
import type { CommandOptions } from '../../../../src/vm/command-types.ts';
import { failureOf } from '../state.ts';
import { SOON_MS, run, type VmOfTest } from './guest.ts';

/** Running a command and waiting for its end. */
export function describeRun(vm: VmOfTest): void {
  describe('vm.commands.run', () => {
    it('gives all there is to know of a command that ended well', async () => {
      const result = await run(vm, 'echo $((1 + 1)) | cat; echo err >&2');
      expect(result).toEqual({
        exitCode: 0,
        signal: undefined,
        stdout: '2\n',
        stderr: 'err\n',
        durationMs: expect.any(Number),
        timedOut: false,
        isCanceled: false,
        truncated: false,
      });
      expect(result.durationMs).toBeGreaterThan(0);
    });

    it('runs argv as it is, and a line in a login shell', async () => {
      const argv = ['printf', '%s|', 'a  b', '$HOME', '*', '', "it's", 'ü'];
      expect((await vm().commands.run(argv)).stdout).toBe("a  b|$HOME|*||it's|ü|");
      expect((await run(vm, 'shopt login_shell')).stdout).toMatch(/login_shell\s+on/);
    });

    it('is the user agent at home; another user, directory and environment where asked', async () => {
      const script = 'id -un; pwd; echo "$A|$B|$HOME"';
      expect((await run(vm, script)).stdout).toBe('agent\n/home/agent\n||/home/agent\n');
      const envs = { A: 'a b\n$(x)', B: '' };
      const asRoot = await run(vm, script, { user: 'root', cwd: '/tmp', envs });
      expect(asRoot.stdout).toBe('root\n/tmp\na b\n$(x)||/root\n');
      expect((await run(vm, 'id -un', { user: '1000' })).stdout).toBe('agent\n');
    });

    it.each<[string, string | string[], CommandOptions, string]>([
      ['program', ['no-such-program'], {}, 'ENOENT'],
      ['directory', 'true', { cwd: '/no/such/dir' }, 'ENOENT'],
      ['user', 'true', { user: 'nobody-of-this-name' }, 'EUSER'],
      ['right to run it', ['/etc/passwd'], {}, 'EACCES'],
    ])('names what is missing: a %s', async (_what, command, o, guestCode) => {
      const error = await failureOf(run(vm, command, o));
      expect(error).toBeInstanceOf(GuestRequestError);
      expect(error).toMatchObject({ code: 'ERR_GUEST_REQUEST', guestCode, vmId: vm().id });
    });

    it('rejects with the whole result where the exit code is not 0', async () => {
      const error = await failureOf(run(vm, 'echo out; echo err >&2; exit 7'));
      expect(error).toBeInstanceOf(CommandExitError);
      expect(error).toMatchObject({
        code: 'ERR_COMMAND_EXIT',
        message: 'command exited with code 7',
        exitCode: 7,
        stderr: 'err\n',
        vmId: vm().id,
        result: { exitCode: 7, stdout: 'out\n', stderr: 'err\n' },
      });
    });

    it('gives it as data where that is wanted', async () => {
      expect(await run(vm, 'exit 7', { reject: false })).toMatchObject({ exitCode: 7 });
      const killed = await run(vm, 'kill -TERM $$', { reject: false });
      expect(killed).toMatchObject({ exitCode: undefined, signal: 'SIGTERM', timedOut: false });
    });

    it('refuses what cannot be sent before it asks the guest', async () => {
      const large = 'x'.repeat(2 ** 21);
      for (const [command, o] of [
        ['', {}],
        ['true', { timeoutMs: -1 }],
        ['true', { envs: { 'A=': '' } }],
        ['true', { maxOutputBytes: -1 }],
        [large, {}],
      ] as const) {
        expect(await failureOf(vm().commands.run(command, o))).toBeInstanceOf(ConfigError);
      }
    });

    it('runs many at once, each with its own output', async () => {
      const numbers = Array.from({ length: 10 }, (_, i) => i);
      const outputs = await Promise.all(
        numbers.map((n) => run(vm, `cat; echo ${n}`, { stdin: `in ${n}\n` })),
      );
      expect(outputs.map(({ stdout }) => stdout)).toEqual(numbers.map((n) => `in ${n}\n${n}\n`));
    });

    it('does not wait for what a command leaves in the background', async () => {
      const { stdout } = await run(vm, 'sleep 611 & echo done', { timeoutMs: SOON_MS });
      expect(stdout).toBe('done\n');
      await run(vm, 'pkill -f "sleep 611"');
    });
  });
}
