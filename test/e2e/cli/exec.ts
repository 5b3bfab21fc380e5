/** `qmp-agent exec` in a VM that is there; what `run` does the same way, without a boot for each. */
import { once } from 'node:events';
import { randomBytes } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import {
  qmpAgent,
  startQmpAgent,
  type CommandOptions,
  type Sandbox,
} from '../../integration/cli/command.ts';
import { SCALE } from '../../scale.ts';
import { started } from './host.ts';

/** Tests of `exec` in the running VM `box` of a sandbox. */
export function describeExec(sandbox: () => Sandbox): void {
  const words = (options: string[], argv: string[]) => [
    'exec',
    '--log-level',
    'error',
    ...options,
    'box',
    '--',
    ...argv,
  ];
  const exec = (argv: string[], o: CommandOptions & { options?: string[] } = {}) =>
    qmpAgent(words(o.options ?? [], argv), { ...o, env: sandbox().env });

  describe('exec', () => {
    it.each([
      [['sh', '-c', 'exit 7'], 7],
      [['sh', '-c', 'kill -TERM $$'], 143],
      [['no-such-program'], 127],
      [['/etc/passwd'], 126],
    ])('ends with the code of %j: %d', async (argv, exitCode) => {
      expect((await exec(argv)).exitCode).toBe(exitCode);
    });

    it('passes options on to the command', async () => {
      const result = await exec(['echo', '--name', '-m', '--']);
      expect(result.stdout).toBe('--name -m --');
    });

    it('pipes some MiB through, byte by byte', async () => {
      const input = randomBytes(8 * 1024 * 1024);
      const file = join(sandbox().dir, 'copy');
      const copy = await exec(['cat'], { input, stdout: { file } });
      expect(copy.exitCode).toBe(0);
      expect((await readFile(file)).equals(input)).toBe(true);
    });

    it('does not wait for a stdin that nobody closes', async () => {
      // The pipe stays open on our side until the process has ended.
      expect(await exec(['echo', 'done'], { stdin: 'pipe' })).toMatchObject({
        exitCode: 0,
        stdout: 'done',
      });
    });

    it('kills the command when --timeout is over', async () => {
      const result = await exec(['sleep', '600'], { options: ['--timeout', '2'] });
      expect(result.exitCode).toBe(124);
    });

    it('ends when the reader of its output has gone', async () => {
      const command = startQmpAgent(words([], ['yes']), { env: sandbox().env });
      command.stdout!.once('data', () => command.stdout!.destroy());
      expect((await command).exitCode).toBe(141);
    });

    it('passes Ctrl-C on to the command, which may deal with it', async () => {
      const script = 'trap "echo caught; exit 5" INT; echo ready; while :; do sleep 0.1; done';
      const command = startQmpAgent(words([], ['bash', '-c', script]), { env: sandbox().env });
      await started(command);
      command.kill('SIGINT');
      const result = await command;
      expect(result).toMatchObject({ exitCode: 5 });
      expect(result.stdout).toContain('caught');
    });

    it('ends with a command that does not deal with Ctrl-C', async () => {
      const script = 'echo ready; exec sleep 600';
      const command = startQmpAgent(words([], ['bash', '-c', script]), { env: sandbox().env });
      await started(command);
      command.kill('SIGINT');
      expect((await command).exitCode).toBe(130);
    });

    it('ends on a second Ctrl-C with the command, without the VM', async () => {
      const script = 'trap "echo caught" INT; echo ready; while :; do sleep 0.1; done';
      const argv = ['bash', '-c', script, 'stubborn'];
      const command = startQmpAgent(words([], argv), { env: sandbox().env });
      await started(command);
      command.kill('SIGINT');
      await once(command.stdout!, 'data');
      command.kill('SIGINT');
      expect((await command).exitCode).toBe(130);
      const isGone = async () => (await exec(['pgrep', '-f', 'stubborn'])).exitCode === 1;
      await expect.poll(isGone, { timeout: 10_000 * SCALE }).toBe(true);
    });
  });
}
