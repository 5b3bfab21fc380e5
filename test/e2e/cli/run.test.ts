/** `qmp-agent run`: one VM a command. What `exec` does the same way is tested there, on one VM. */
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { qmpAgent, type CommandOptions, type Sandbox } from '../../integration/cli/command.ts';
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
  it('prints the command’s output and nothing else, and ends with its code', async () => {
    const result = await run(['--', 'sh', '-c', 'cat; echo err >&2; exit 7'], { input: 'in\n' });
    expect(result).toMatchObject({ exitCode: 7, stdout: 'in', stderr: 'err' });
  });

  it('hands environment, user and directory over, and options without --', async () => {
    const file = join(box.dir, 'env');
    await writeFile(file, 'FROM_FILE=file\n');
    const script = 'echo $A $FROM_FILE $OWN; id -un; pwd; echo "$@"';
    const flags = ['--env', 'A=1', '--env', 'OWN', '--env-file', file, '--user', 'root'];
    const words = ['sh', '-c', script, 'sh', '--name', '-m', '--'];
    const result = await run([...flags, '--workdir', '/tmp', ...words], { env: { OWN: 'own' } });
    const stdout = '1 file own\nroot\n/tmp\n--name -m --';
    expect(result).toMatchObject({ exitCode: 0, stdout, stderr: '' });
  });

  it('says what is wrong where there is no such image, with 125', async () => {
    const result = await run(['--image', 'no-such-image', '--', 'true']);
    expect(result.exitCode).toBe(125);
    expect(result.stderr).toMatch(/qmp-agent: .*no-such-image/);
    expect(result.stderr).toContain('hint: ');
  });
});
