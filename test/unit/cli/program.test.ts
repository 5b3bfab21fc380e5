import { Command } from 'commander';
import { describe, expect, it } from 'vitest';
import {
  addExecOptions,
  addGlobalOptions,
  addVmOptions,
  collectFlags,
  seconds,
} from '../../../src/cli/config-flags.ts';
import { CliContext } from '../../../src/cli/context.ts';
import { signalExitCode } from '../../../src/cli/exit-codes.ts';
import { buildProgram, commandWord } from '../../../src/cli/program.ts';
import { COMMANDS, findCommand } from '../../../src/cli/registry.ts';
import { wantsColor } from '../../../src/cli/style.ts';
import { FIELDS } from '../../../src/config/schema.ts';

describe('commandWord', () => {
  it.each([
    [['run', '--', 'ls'], 'run'],
    [['--log-level', 'debug', 'run'], 'run'],
    [['--log-level=debug', '--json', 'list'], 'list'],
    [['--help'], undefined],
    [[], undefined],
  ])('of %j is %s', (args, word) => {
    expect(commandWord(args)).toBe(word);
  });
});

describe('the tree of commands', () => {
  it('has no name twice', () => {
    const names = COMMANDS.flatMap((entry) => [entry.name, ...(entry.alias ? [entry.alias] : [])]);
    expect(new Set(names).size).toBe(names.length);
  });

  it('registers every command under its own name and alias', async () => {
    const program = await buildProgram(new CliContext(), 'all');
    for (const entry of COMMANDS) {
      const command = program.commands.find((found) => found.name() === entry.name);
      expect(command?.alias(), entry.name).toBe(entry.alias);
    }
    expect(program.commands).toHaveLength(COMMANDS.length);
  });

  it('finds nothing for no word', () => {
    expect(findCommand(undefined)).toBeUndefined();
    expect(findCommand('ls')?.name).toBe('list');
  });
});

describe('flags that are settings', () => {
  function parse(...args: string[]) {
    const program = addGlobalOptions(new Command().enablePositionalOptions());
    const run = addGlobalOptions(addExecOptions(addVmOptions(program.command('run'))));
    run
      .argument('<command...>')
      .passThroughOptions()
      .action(() => undefined);
    program.parse(args, { from: 'user' });
    return collectFlags(run).map(({ path, value, flag }) => [path.join('.'), value, flag]);
  }

  it('name their setting; those not given are left out', () => {
    expect(parse('--log-level', 'info', 'run', '-m', '2G', '--timeout', '5', 'ls', '-m')).toEqual([
      ['log.level', 'info', '--log-level'],
      ['vm.memoryMib', '2G', '--memory'],
      ['exec.timeoutMs', '5s', '--timeout'],
    ]);
  });

  it('are taken from the command where program and command have them', () => {
    expect(parse('--log-level', 'info', 'run', '--log-level', 'debug', 'ls').at(-1)).toEqual([
      'log.level',
      'debug',
      '--log-level',
    ]);
  });

  it('all exist', () => {
    const known = FIELDS.map((field) => field.path.join('.'));
    const all = parse(
      'run',
      '--image=a',
      '--vcpus=1',
      '--memory=1G',
      '--disk=1G',
      '--accel=tcg',
      '--machine=q35',
      '--workdir=/',
      '--user=u',
      '--timeout=1',
      '--trace=qmp',
      '--log-file=f',
      '--log-format=json',
      'ls',
    );
    expect(all).toHaveLength(12);
    for (const [name] of all) expect(known).toContain(name);
  });

  it('count seconds where they have no unit', () => {
    expect(['5', '1.5', '5m', 'x'].map(seconds)).toEqual(['5s', '1.5s', '5m', 'x']);
  });
});

describe('exit codes and colours', () => {
  it('are 128 + n for signals', () => {
    expect(['SIGINT', 'SIGKILL', 'SIGTERM'].map(signalExitCode)).toEqual([130, 137, 143]);
    expect(signalExitCode('SIGNOSUCH')).toBe(1);
  });

  it('honour NO_COLOR before all else', () => {
    const tty = { isTTY: true };
    expect(wantsColor(tty, { TERM: 'xterm' })).toBe(true);
    expect(wantsColor(tty, { NO_COLOR: '1', FORCE_COLOR: '1' })).toBe(false);
    expect(wantsColor(tty, { NO_COLOR: '' })).toBe(true);
    expect(wantsColor(tty, { TERM: 'dumb' })).toBe(false);
    expect(wantsColor({}, {})).toBe(false);
    expect(wantsColor({}, { FORCE_COLOR: '1' })).toBe(true);
  });
});
