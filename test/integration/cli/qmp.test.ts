/** `qmp-agent qmp` on a QEMU without a guest, by the path of its socket. */
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { QmpClient } from '../../../qmp/index.ts';
import { TestQemu } from '../qmp/qemu.ts';
import { SilentNbd } from '../qmp/stuck-command.ts';
import { qmpAgent, sandbox, startQmpAgent, type CommandOptions, type Sandbox } from './command.ts';
import { Terminal } from './terminal.ts';

let box: Sandbox;
let qemu: TestQemu;
beforeAll(async () => {
  box = await sandbox();
  qemu = await TestQemu.start((dir) => [
    ...['-M', 'none'],
    ...['-qmp', `unix:${join(dir, 'second.sock')},server=on,wait=off`],
  ]);
  await (await qemu.connect()).close();
});
afterAll(async () => {
  await qemu[Symbol.asyncDispose]();
  await box[Symbol.asyncDispose]();
});

const qmp = (args: string[], o: CommandOptions = {}) =>
  qmpAgent(['qmp', qemu.path, ...args], { ...o, env: box.env });

/** Lines of JSON. */
const parsed = (text: unknown): unknown[] =>
  String(text)
    .split('\n')
    .map((line) => JSON.parse(line) as unknown);

describe('one command', () => {
  it('prints the answer as one line of JSON', async () => {
    const result = await qmp(['query-status']);
    expect(result).toMatchObject({ exitCode: 0, stderr: '' });
    expect(parsed(result.stdout)).toMatchObject([{ status: 'running', running: true }]);
    const told = await qmp(['human-monitor-command', '{"command-line": "print/d 6*7"}']);
    expect(parsed(told.stdout)).toEqual(['42\r\n']);
  });

  it.each([
    [['job-cancel', '{"id": "nobody"}'], 'QMP job-cancel: Job not found', ''],
    [['quer-status'], 'has not been found', 'Did you mean query-status?'],
    [['job-cancel', '{"id": }'], 'arguments of job-cancel: not JSON: {"id": }', 'Write a JSON'],
  ])('%j fails with 1, and tells why', async (args, message, hint) => {
    const result = await qmp(args);
    expect(result).toMatchObject({ exitCode: 1, stdout: '' });
    expect(result.stderr).toContain(`qmp-agent: `);
    expect(result.stderr).toContain(message);
    expect(result.stderr).toContain(hint);
  });

  it('prints errors as JSON where asked to', async () => {
    const { stderr, exitCode } = await qmp(['--json', 'job-cancel', '{"id": "nobody"}']);
    expect(exitCode).toBe(1);
    expect(parsed(stderr)).toMatchObject([
      { error: { code: 'ERR_QMP_COMMAND', errorClass: 'GenericError', desc: 'Job not found' } },
    ]);
  });

  it('gives up in its time', async () => {
    await using nbd = await SilentNbd.listen(qemu);
    const result = await qmp(['--timeout', '100ms', 'blockdev-add', JSON.stringify(nbd.node)]);
    expect(result.exitCode).toBe(1);
    expect(result.stderr).toContain('QMP blockdev-add: no result within 100 ms');
  });

  it('tells of a socket that is not there, and of an odd time', async () => {
    const gone = await qmpAgent(['qmp', `${qemu.dir}/none`, 'stop'], { env: box.env });
    expect(gone.exitCode).toBe(1);
    expect(gone.stderr).toContain('hint: Start the VM first');
    const odd = await qmp(['stop', '--timeout', 'soon']);
    expect(odd.exitCode).toBe(2);
    expect(odd.stderr).toContain('give a time');
  });
});

describe('commands from a pipe', () => {
  it('are answered in order, with events between them, a line of JSON each', async () => {
    const input = 'query-name\n\n  stop\n{"execute": "cont"}\n';
    const { stdout, exitCode } = await qmp([], { input });
    expect(exitCode).toBe(0);
    expect(parsed(stdout)).toMatchObject([
      { return: {} },
      { event: 'STOP' },
      { return: {} },
      { event: 'RESUME' },
      { return: {} },
    ]);
  });

  it('fail with 1 where one fails, and the rest is still done', async () => {
    const input = 'quer-name\njob-cancel {"id"}\nquery-name\nhelp xyz';
    const { stdout, exitCode } = await qmp([], { input });
    expect(exitCode).toBe(1);
    expect(parsed(stdout)).toMatchObject([
      { error: { class: 'CommandNotFound', hint: expect.stringContaining('query-name?') } },
      { error: { class: 'ConfigError', desc: expect.stringContaining('not JSON') } },
      { return: {} },
      { error: { desc: 'no such command: xyz' } },
    ]);
  });

  it('end with quit', async () => {
    await using leaving = await TestQemu.start();
    await (await leaving.connect()).close();
    const result = await qmpAgent(['qmp', leaving.path], {
      env: box.env,
      input: 'quit\nquery-name\n',
    });
    expect(result).toMatchObject({ exitCode: 0, stderr: '' });
    expect(result.stdout).not.toContain('error');
  });

  it('end with an error when QEMU is killed', async () => {
    await using doomed = await TestQemu.start();
    await (await doomed.connect()).close();
    const talk = startQmpAgent(['qmp', doomed.path], { env: box.env, stdin: 'pipe' });
    talk.stdin?.write('query-name\n');
    await new Promise((resolve) => talk.stdout?.once('data', resolve));
    doomed.process.kill('SIGKILL');
    const result = await talk;
    expect(result.exitCode).toBe(1);
    expect(result.stderr).toContain('lost: closed by QEMU');
  });
});

describe('the prompt', () => {
  it('completes, answers, shows events and errors, and ends with Ctrl-D', async () => {
    await using terminal = Terminal.start(['qmp', qemu.path], box.env);
    await terminal.shows('Tab completes, help explains, Ctrl-D leaves.');
    await terminal.shows('(qmp) ');

    terminal.type('query-sta\t');
    await terminal.shows('query-stat');
    terminal.type('\t');
    expect(await terminal.shows('query-status')).toContain('query-stats-schemas');
    terminal.type('us\r');
    expect(await terminal.shows('}')).toContain('\r\n  "status": "running"');

    terminal.type('stop\r');
    expect(await terminal.shows('{}')).toMatch(/\d\d:\d\d:\d\d\.\d{3} STOP\r\n/);

    terminal.type('job-can\t');
    await terminal.shows('cel ');
    terminal.type('{\t');
    await terminal.shows('{"id": ');
    terminal.type('"nobody"}\r');
    await terminal.shows('QMP job-cancel: Job not found');

    terminal.type('quer-status\r');
    await terminal.shows('Did you mean query-status?');
    terminal.type('help job-cancel\r');
    await terminal.shows('"id": string');

    // What is half typed stays while an event comes in between, and goes by Ctrl-C.
    terminal.type('query-na');
    await terminal.shows('query-na');
    await using other = await QmpClient.connect({ path: join(qemu.dir, 'second.sock') });
    await other.execute('cont');
    await terminal.shows(' RESUME\r\n');
    await terminal.shows('(qmp) query-na');
    terminal.type('\x03');
    await terminal.shows('(Ctrl-D leaves)');
    terminal.type('query-uuid\r');
    expect(await terminal.shows('"UUID"')).not.toContain('query-na');

    terminal.type('\x04');
    expect(await terminal.end()).toMatchObject({ exitCode: 0 });
  });

  it('stops waiting for an answer with Ctrl-C', async () => {
    await using nbd = await SilentNbd.listen(qemu);
    await using terminal = Terminal.start(['qmp', qemu.path], box.env);
    await terminal.shows('(qmp) ');
    const asked = nbd.connected();
    terminal.type(`blockdev-add ${JSON.stringify(nbd.node)}\r`);
    await asked;
    terminal.type('\x03');
    await terminal.shows('stopped waiting for the answer; QEMU may still carry the command out');
    await nbd.release();
    terminal.type('query-name\r');
    await terminal.shows('{}');
    terminal.type('\x04');
    expect(await terminal.end()).toMatchObject({ exitCode: 0 });
  });

  it('ends with an error when QEMU is killed', async () => {
    await using doomed = await TestQemu.start();
    await (await doomed.connect()).close();
    await using terminal = Terminal.start(['qmp', doomed.path], box.env);
    await terminal.shows('(qmp) ');
    doomed.process.kill('SIGKILL');
    const { exitCode, rest } = await terminal.end();
    expect(exitCode).toBe(1);
    expect(rest).toContain('lost: closed by QEMU');
  });
});
