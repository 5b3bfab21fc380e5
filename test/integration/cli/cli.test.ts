import { execFileSync } from 'node:child_process';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { NODE_ARGS, qmpAgent, sandbox, type Sandbox } from './command.ts';

let box: Sandbox;
beforeAll(async () => {
  box = await sandbox();
});
afterAll(() => box[Symbol.asyncDispose]());

const run = (args: string[], env: Record<string, string> = {}) =>
  qmpAgent(args, { env: { ...box.env, ...env } });

describe('the command line', () => {
  it('tells its version, by either flag', async () => {
    const { version } = JSON.parse(await readFile('package.json', 'utf8')) as { version: string };
    for (const args of [['--version'], ['-V'], ['--log-level', 'info', '-V']]) {
      expect(await run(args)).toMatchObject({ exitCode: 0, stdout: version });
    }
  });

  it('shows help on stdout when asked, on stderr when it was told nothing', async () => {
    const asked = await run(['--help']);
    expect(asked).toMatchObject({ exitCode: 0, stderr: '' });
    expect(asked.stdout).toContain('run a command in a new VM');
    const bare = await run([]);
    expect(bare).toMatchObject({ exitCode: 2, stdout: '' });
    expect(bare.stderr).toContain('Usage: qmp-agent');
    expect((await run(['help', 'run'])).stdout).toContain('--timeout');
  });

  it.each([
    [['rnu'], 2, "unknown command 'rnu'", 'did you mean run?'],
    [['run'], 125, "missing required argument 'command'", 'usage: qmp-agent run [options]'],
    [['run', '--imge', 'x', 'ls'], 125, "unknown option '--imge'", 'did you mean --image?'],
    [
      ['run', '--template', 't', '-m', '2G', '--', 'ls'],
      125,
      '--memory and --template exclude each other',
      'another template',
    ],
    [['exec', 'box'], 125, "missing required argument 'command'", 'usage: qmp-agent exec'],
    [['exec', 'box', '--'], 125, "missing required argument 'command'", 'usage: qmp-agent exec'],
    [['stop'], 2, "missing required argument 'vm'", 'usage: qmp-agent stop'],
    [['list', 'x'], 2, "too many arguments for 'list'", 'usage: qmp-agent list'],
    [['image', 'bild'], 2, "unknown command 'bild'", 'did you mean build?'],
    [['completion', 'fish'], 2, 'Allowed choices are bash, zsh', 'usage: qmp-agent completion'],
    [['run', '--vcpus', '0', 'ls'], 125, '--vcpus = "0"', 'from 1 to 64'],
    [['list', '--log-level', 'loud'], 1, '--log-level = "loud"', 'silent, fatal'],
    [['run', '--env', '=x', 'ls'], 125, '--env: not a variable', 'NAME=value'],
  ])('%j ends with %d and says why', async (args, exitCode, message, hint) => {
    const result = await run(args);
    expect(result).toMatchObject({ exitCode, stdout: '' });
    expect(result.stderr).toContain(`qmp-agent: `);
    expect(result.stderr).toContain(message);
    expect(result.stderr).toMatch(/\nhint: /);
    expect(result.stderr).toContain(hint);
    expect(result.stderr).not.toContain('    at ');
  });

  it('reports errors as JSON where JSON was asked for', async () => {
    const result = await run(['list', '--json', '--log-format', 'x']);
    expect(result).toMatchObject({ exitCode: 1, stdout: '' });
    expect(JSON.parse(result.stderr)).toMatchObject({
      error: { code: 'ERR_CONFIG', field: '--log-format', hint: expect.any(String) },
    });
  });

  it('shows stacks at --log-level debug only', async () => {
    const args = ['image', 'inspect', 'no-such-image'];
    const plain = await run(args);
    expect(plain.exitCode).toBe(1);
    expect(plain.stderr).not.toContain('    at ');
    expect((await run([...args, '--log-level', 'debug'])).stderr).toContain('    at ');
  });

  it('ends as by SIGPIPE, quietly, where its reader has gone', () => {
    const command = [process.execPath, ...NODE_ARGS].join(' ');
    const script = `set -o pipefail; ${command} --help | true; echo "\${PIPESTATUS[0]}"`;
    const output = execFileSync('bash', ['-c', script], { encoding: 'utf8', stdio: 'pipe' });
    // Whether the help was written before or after `true` ended is up to the scheduler.
    expect(['0', '141']).toContain(output.trim());
  });
});

describe('config', () => {
  it('names the origin of every value', async () => {
    const file = join(box.dir, 'config/qmp-agent/config.yaml');
    await mkdir(join(box.dir, 'config/qmp-agent'), { recursive: true });
    await writeFile(file, 'vm:\n  # more\n  memoryMib: 2G\n  vcpus: 2\n');
    const env = { QMP_AGENT_VM_VCPUS: '3' };
    const shown = await run(['config', 'show', '--log-level', 'error'], env);
    expect(shown.exitCode).toBe(0);
    expect(shown.stdout).toContain('vm.memoryMib = 2048');
    expect(shown.stdout).toMatch(new RegExp(`vm\\.memoryMib = 2048 +\\(${file}:3\\)`));
    expect(shown.stdout).toMatch(/vm\.vcpus = 3 +\(QMP_AGENT_VM_VCPUS\)/);
    expect(shown.stdout).toMatch(/log\.level = error +\(--log-level\)/);
    expect(shown.stdout).toMatch(/vm\.image = base +\(default\)/);
    const json = await run(['config', 'show', '--json'], env);
    expect(JSON.parse(json.stdout)).toMatchObject({
      'vm.memoryMib': { value: 2048, origin: { kind: 'file', file, line: 3 } },
      'vm.vcpus': { value: 3, origin: { kind: 'env', name: 'QMP_AGENT_VM_VCPUS' } },
      'state.dataDir': { value: join(box.dir, 'data') },
    });
    const path = await run(['config', 'path', '--json']);
    expect(JSON.parse(path.stdout)).toContainEqual({ file, exists: true });
    await writeFile(file, '');
  });

  it('names file and line of what is wrong, and doctor goes on without it', async () => {
    const file = join(box.dir, 'wrong.yaml');
    await writeFile(file, 'vm:\n  memroy: 2G\n');
    const list = await run(['list', '--config', file]);
    expect(list.exitCode).toBe(1);
    expect(list.stderr).toContain(`unknown setting vm.memroy (${file}:2)`);
    const doctor = await run(['doctor', '--json', '--config', file]);
    const checks = JSON.parse(doctor.stdout) as { id: string; status: string; found: string }[];
    expect(doctor.exitCode).toBe(1);
    expect(checks.find(({ id }) => id === 'config')).toMatchObject({ status: 'fail' });
    expect(checks.find(({ id }) => id === 'qemu.program')).toMatchObject({ status: 'ok' });
  });
});

describe('doctor', () => {
  it('judges this host, for people and for machines', async () => {
    const json = await run(['doctor', '--json']);
    const checks = JSON.parse(json.stdout) as { id: string; status: string; fix?: string }[];
    for (const { id, status, fix } of checks) {
      expect(['ok', 'warn', 'fail'], id).toContain(status);
      expect(fix === undefined, id).toBe(status === 'ok');
    }
    expect(new Set(checks.map(({ id }) => id)).size).toBe(checks.length);
    expect(checks.find(({ id }) => id === 'image')).toMatchObject({ status: 'warn' });
    const plain = await run(['doctor']);
    expect(plain.exitCode).toBe(json.exitCode);
    expect(plain.stdout).toContain('do: qmp-agent image build');
    expect(plain.stdout).not.toContain('\x1b[');
  });

  it('fails without QEMU and says what to install', async () => {
    const { exitCode, stdout } = await run(['doctor'], { QMP_AGENT_QEMU_PATH: '/no/qemu' });
    expect(exitCode).toBe(1);
    expect(stdout).toContain('/no/qemu is missing');
    expect(stdout).toContain('apt install qemu-system-x86');
    expect(stdout).toContain('VMs cannot work here');
  });

  it('colours where it is forced to', async () => {
    const { stdout } = await run(['doctor'], { NO_COLOR: '', FORCE_COLOR: '1' });
    expect(stdout).toContain('\x1b[32mok');
  });
});
