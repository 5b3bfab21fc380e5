import { createHash, randomBytes } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import {
  qmpAgent,
  startQmpAgent,
  type CommandOptions,
  type Sandbox,
} from '../../integration/cli/command.ts';
import { expectNothingLeft, vmSandbox } from './host.ts';

let box: Sandbox;
beforeAll(async () => {
  box = await vmSandbox();
});
afterEach(() => expectNothingLeft(box));
afterAll(() => box[Symbol.asyncDispose]());

const run = (args: string[], o: CommandOptions = {}) =>
  qmpAgent(['run', '--accel', 'auto', '--log-level', 'error', ...args], {
    ...o,
    env: { ...box.env, ...o.env },
  });

describe('qmp-agent run', () => {
  it('prints the command’s output and nothing else', async () => {
    const script = 'echo out; echo err >&2; uname -s';
    const result = await run(['--', 'sh', '-c', script]);
    expect(result).toMatchObject({ exitCode: 0, stdout: 'out\nLinux', stderr: 'err' });
  });

  it.each([
    [['sh', '-c', 'exit 7'], 7],
    [['sh', '-c', 'kill -TERM $$'], 143],
    [['no-such-program'], 127],
    [['/etc/passwd'], 126],
  ])('ends with the code of %j: %d', async (argv, exitCode) => {
    expect((await run(['--', ...argv])).exitCode).toBe(exitCode);
  });

  it('passes options on to the command, with and without --', async () => {
    const result = await run(['echo', '--name', '-m', '--']);
    expect(result.stdout).toBe('--name -m --');
  });

  it('hands environment, user and directory over', async () => {
    const file = join(box.dir, 'env');
    await writeFile(file, 'FROM_FILE=file\n');
    const script = 'echo $A $FROM_FILE $OWN; id -un; pwd';
    const flags = ['--env', 'A=1', '--env', 'OWN', '--env-file', file, '--user', 'root'];
    const args = [...flags, '--workdir', '/tmp', '--', 'sh', '-c', script];
    const result = await run(args, { env: { OWN: 'own' } });
    expect(result).toMatchObject({ exitCode: 0, stdout: '1 file own\nroot\n/tmp' });
  });

  it('pipes some MiB through, byte by byte', async () => {
    const input = randomBytes(8 * 1024 * 1024);
    const command = startQmpAgent(['run', '--log-level', 'error', '--', 'sha256sum'], {
      input,
      env: box.env,
    });
    const result = await command;
    const digest = createHash('sha256').update(input).digest('hex');
    expect(result.stdout).toBe(`${digest}  -`);
    const file = join(box.dir, 'copy');
    const copy = await run(['--', 'cat'], { input, stdout: { file } });
    expect(copy.exitCode).toBe(0);
    const { readFile } = await import('node:fs/promises');
    const copied = createHash('sha256')
      .update(await readFile(file))
      .digest('hex');
    expect(copied).toBe(digest);
  });

  it('does not wait for a stdin that nobody closes', async () => {
    // The pipe stays open on our side until the process has ended.
    const command = startQmpAgent(['run', '--log-level', 'error', '--', 'echo', 'done'], {
      stdin: 'pipe',
      env: box.env,
    });
    const result = await command;
    expect(result).toMatchObject({ exitCode: 0, stdout: 'done' });
  });

  it('kills the command when --timeout is over', async () => {
    const result = await run(['--timeout', '2', '--', 'sleep', '600']);
    expect(result.exitCode).toBe(124);
  });

  it('ends when the reader of its output has gone', async () => {
    const command = startQmpAgent(['run', '--log-level', 'error', '--', 'yes'], {
      env: box.env,
    });
    command.stdout!.once('data', () => command.stdout!.destroy());
    expect((await command).exitCode).toBe(141);
  });

  it('says what is wrong where there is no such image, with 125', async () => {
    const result = await run(['--image', 'no-such-image', '--', 'true']);
    expect(result.exitCode).toBe(125);
    expect(result.stderr).toMatch(/qmp-agent: .*no-such-image/);
    expect(result.stderr).toContain('hint: ');
  });
});
