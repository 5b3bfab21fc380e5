import { execFileSync } from 'node:child_process';
import { chmod, mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { qmpAgent, sandbox, type Sandbox } from './command.ts';

let box: Sandbox;
let script: string;
beforeAll(async () => {
  box = await sandbox();
  const bin = join(box.dir, 'bin');
  await mkdir(bin);
  script = (await qmpAgent(['completion', 'bash'], { env: box.env })).stdout;
  // The script asks the command on PATH for names; what it asks for is what this stand-in gets.
  const stub =
    '#!/bin/sh\n[ "$*" = "__complete vms" ] && echo "box1 box2 other"\n[ "$*" = "__complete images" ] && echo "base web"\n';
  await writeFile(join(bin, 'qmp-agent'), stub);
  await chmod(join(bin, 'qmp-agent'), 0o755);
});
afterAll(() => box[Symbol.asyncDispose]());

/** What bash would offer for the last of these words. */
function complete(...words: string[]): string[] {
  const line = words.map((word) => `'${word}'`).join(' ');
  const call = `
    ${script}
    COMP_WORDS=(qmp-agent ${line}); COMP_CWORD=${words.length}
    _qmp_agent; printf '%s\\n' "\${COMPREPLY[@]}"`;
  const PATH = `${join(box.dir, 'bin')}:${process.env['PATH']}`;
  const output = execFileSync('bash', ['--norc', '-c', call], { env: { PATH }, encoding: 'utf8' });
  return output
    .split('\n')
    .filter((word) => word !== '')
    .sort();
}

describe('completion in bash', () => {
  it('is a script that bash accepts and registers', () => {
    const check = `${script}\ncomplete -p qmp-agent`;
    const output = execFileSync('bash', ['--norc', '-euc', check], { encoding: 'utf8' });
    expect(output).toContain('-F _qmp_agent');
  });

  it.each([
    [['ru'], ['run']],
    [['re'], ['remove', 'resume']],
    [['image', 'b'], ['build']],
    [
      ['image', ''],
      ['build', 'import', 'inspect', 'list', 'ls', 'prune', 'remove', 'rm'],
    ],
    [['run', '--ac'], ['--accel']],
    [
      ['run', '--accel', ''],
      ['auto', 'kvm', 'tcg'],
    ],
    [['run', '--image', 'b'], ['base']],
    [['run', '--image', 'base', '--mach'], ['--machine']],
    [['--log-level', 'd'], ['debug']],
    [
      ['--log-level', 'debug', 'stop', 'box'],
      ['box1', 'box2'],
    ],
    [['exec', 'box1', '--', 'l'], []],
    [['run', '--', '--ac'], []],
    [['rm', '--f'], ['--force']],
    [['image', 'inspect', 'w'], ['web']],
    [
      ['completion', ''],
      ['bash', 'zsh'],
    ],
    [['--no-such'], []],
    [['__c'], []],
  ])('%j offers %j', (words, offers) => {
    expect(complete(...words)).toEqual(offers);
  });

  it('offers files where files are wanted', () => {
    expect(complete('run', '--env-file', '/etc/host')).toContain('/etc/hosts');
  });
});

describe('names for the scripts', () => {
  it('come without a word about errors', async () => {
    for (const kind of ['vms', 'images', 'xyzzy']) {
      const env = { ...box.env, QMP_AGENT_VM_VCPUS: 'broken' };
      const result = await qmpAgent(['__complete', kind], { env });
      expect(result).toMatchObject({ exitCode: 0, stdout: '', stderr: '' });
    }
  });
});

describe('completion in zsh', () => {
  it('loads the compatibility layer before the same function', async () => {
    const { stdout } = await qmpAgent(['completion', 'zsh'], { env: box.env });
    expect(stdout).toMatch(/^#compdef qmp-agent\n/);
    expect(stdout.indexOf('bashcompinit')).toBeLessThan(stdout.indexOf('_qmp_agent()'));
    expect(stdout.trimEnd()).toMatch(/complete -o default -F _qmp_agent qmp-agent$/);
  });
});
