/** `qmp-agent qmp` on a VM; what needs no guest is tested in test/integration/cli. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { qmpAgent, type CommandOptions, type Sandbox } from '../../integration/cli/command.ts';
import { Terminal } from '../../integration/cli/terminal.ts';
import { expectNothingLeft, vmSandbox } from './host.ts';

let box: Sandbox;
let id: string;
beforeAll(async () => {
  box = await vmSandbox();
  const created = await qmpAgent(['create', '--name', 'box'], { env: box.env, timeoutMs: 200_000 });
  id = String(created.stdout);
  expect(id).toMatch(/^[0-9a-f]{12}$/);
});
afterAll(async () => {
  await qmpAgent(['rm', '--force', 'box'], { env: box.env });
  await expectNothingLeft(box);
  await box[Symbol.asyncDispose]();
});

const qmp = (vm: string, args: string[] = [], o: CommandOptions = {}) =>
  qmpAgent(['qmp', '--log-level', 'error', vm, ...args], { ...o, env: box.env });

describe('one command', () => {
  it.each(['box', 'id', 'prefix'])('is answered by the VM, named by %s', async (how) => {
    const vm = how === 'box' ? 'box' : how === 'id' ? id : id.slice(0, 6);
    const result = await qmp(vm, ['query-name']);
    expect(result).toMatchObject({ exitCode: 0, stderr: '' });
    expect(JSON.parse(String(result.stdout))).toEqual({ name: `qmp-agent-${id}` });
  });

  it.each([
    [['device_del', '{"id": "nobody"}'], "Device 'nobody' not found", 'query-qmp-schema'],
    [['quer-status'], 'The command quer-status has not been found', 'mean query-status?'],
    [['device_del', '{"id": nobody}'], 'arguments of device_del: not JSON', 'Write a JSON object'],
  ])('%j fails with a named error', async (args, message, hint) => {
    const result = await qmp('box', args);
    expect(result).toMatchObject({ exitCode: 1, stdout: '' });
    expect(result.stderr).toContain(message);
    expect(result.stderr).toMatch(new RegExp(`\\nhint: .*${hint.replaceAll('?', '\\?')}`));
  });
});

describe('the prompt', () => {
  it('completes, and shows what happens to the VM', async () => {
    await using terminal = Terminal.start(['qmp', 'box'], box.env);
    await terminal.shows('(qmp) ');
    terminal.type('query-cpus-f\t');
    await terminal.shows('query-cpus-fast');
    terminal.type('\r');
    await terminal.shows('"qom-path"');
    await terminal.shows(']');
    terminal.type('stop\r');
    expect(await terminal.shows('{}')).toMatch(/\d\d:\d\d:\d\d\.\d{3} STOP\r\n/);
    // Others work on the VM meanwhile, and their doings show.
    const resumed = await qmpAgent(['resume', 'box'], { env: box.env });
    expect(resumed.exitCode).toBe(0);
    await terminal.shows(' RESUME');
    terminal.type('\x04');
    expect(await terminal.end()).toMatchObject({ exitCode: 0 });
  });

  it('takes commands from a pipe', async () => {
    const { stdout, exitCode } = await qmp('box', [], { input: 'query-status\nquery-nam\n' });
    expect(exitCode).toBe(1);
    const lines = String(stdout)
      .split('\n')
      .map((line) => JSON.parse(line) as unknown);
    expect(lines).toMatchObject([
      { return: { status: 'running' } },
      { error: { class: 'CommandNotFound', hint: expect.stringContaining('query-name?') } },
    ]);
  });
});

it('says that a VM is not running', async () => {
  expect((await qmpAgent(['kill', 'box'], { env: box.env })).exitCode).toBe(0);
  const result = await qmp('box', ['query-status']);
  expect(result.exitCode).toBe(1);
  expect(result.stderr).toContain(`VM ${id} is stopped, not running or paused`);
  expect(result.stderr).toContain(`qmp-agent start ${id}`);
});
