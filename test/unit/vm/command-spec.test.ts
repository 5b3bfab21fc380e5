import { Readable } from 'node:stream';
import { describe, expect, it } from 'vitest';
import { ConfigError } from '../../../src/errors.ts';
import { checkPid, commandSpec, outputLimit } from '../../../src/vm/command-spec.ts';
import type { CommandLine, CommandOptions } from '../../../src/vm/command-types.ts';

/** What JavaScript lets a caller give, whatever the types say. */
const given = (options: unknown): CommandOptions => options as CommandOptions;
const failure = (action: () => unknown): ConfigError => {
  try {
    action();
  } catch (error) {
    expect(error).toBeInstanceOf(ConfigError);
    return error as ConfigError;
  }
  throw new Error('nothing was thrown');
};

describe('commandSpec', () => {
  it('makes a shell line of text, argv of a list, with the defaults of E2B', () => {
    expect(commandSpec('ls | wc -l', {})).toEqual({
      shell: 'ls | wc -l',
      timeoutMs: 60_000,
      stdin: false,
      onDisconnect: 'kill',
      holdStart: true,
    });
    expect(commandSpec(['ls', ''], {})).toMatchObject({ argv: ['ls', ''] });
  });

  it('passes on what was given', () => {
    const envs = { A: '1', EMPTY: '' };
    const o = { cwd: '/tmp', user: 'root', tag: 't', envs, timeoutMs: 5, stdin: true } as const;
    expect(commandSpec(['x'], { ...o, background: true })).toEqual({
      argv: ['x'],
      cwd: '/tmp',
      user: 'root',
      tag: 't',
      env: envs,
      timeoutMs: 5,
      stdin: true,
      onDisconnect: 'keep',
    });
  });

  it.each([{ background: true }, { stdin: true }, { stdin: 'text' }])(
    'wants to hear of the start at once with %j',
    (o) => expect(commandSpec('cat', o)).not.toHaveProperty('holdStart'),
  );

  it('knows no timeout where it is 0', () => {
    expect(commandSpec('x', { timeoutMs: 0 })).not.toHaveProperty('timeoutMs');
  });

  it.each([true, 'text', '', new Uint8Array(1), Readable.from(['x'])])(
    'opens a stdin for %s',
    (stdin) => expect(commandSpec('cat', { stdin }).stdin).toBe(true),
  );
  it.each([undefined, false])('opens none for %s', (stdin) =>
    expect(commandSpec('cat', { stdin }).stdin).toBe(false),
  );

  it.each<[string, unknown]>([
    ['command', ''],
    ['command', '  \n'],
    ['command', 'a\0b'],
    ['command', []],
    ['command', ['']],
    ['command', ['a', 'b\0']],
    ['command', ['a', 1]],
    ['command', undefined],
    ['command', null],
    ['command', { argv: ['x'] }],
  ])('refuses a %s that is %j', (field, command) => {
    const error = failure(() => commandSpec(command as CommandLine, {}));
    expect(error.field).toBe(field);
    expect(error.hint).toMatch(/\S/);
  });

  it.each<[string, unknown]>([
    ['timeoutMs', -1],
    ['timeoutMs', NaN],
    ['timeoutMs', Infinity],
    ['timeoutMs', 2 ** 31],
    ['timeoutMs', '5'],
    ['timeoutMs', null],
    ['cwd', 'a\0'],
    ['cwd', 7],
    ['user', null],
    ['user', 0],
    ['tag', {}],
    ['stdin', 5],
    ['stdin', ['x']],
    ['stdin', null],
    ['envs', null],
    ['envs', 'A=1'],
    ['envs', ['A=1']],
  ])('refuses %s: %j', (field, value) => {
    const error = failure(() => commandSpec('x', given({ [field]: value })));
    expect(error.field).toBe(field);
    expect(error.message).toContain(field);
    expect(error.hint).toMatch(/\S/);
  });

  it.each<[Record<string, unknown>]>([
    [{ '': 's3cret' }],
    [{ 'A=B': 's3cret' }],
    [{ 'A\0': 's3cret' }],
    [{ A: 's3cret\0' }],
    [{ A: 5 }],
    [{ A: undefined }],
  ])('refuses envs %j without showing a value', (envs) => {
    const error = failure(() => commandSpec('x', given({ envs })));
    expect(error.field).toBe('envs');
    expect(JSON.stringify(error) + error.message).not.toContain('s3cret');
  });

  it('shows only the beginning of what is wrong', () => {
    const error = failure(() => commandSpec(['x', `${'a'.repeat(10_000)}\0`], {}));
    expect(error.message.length).toBeLessThan(400);
  });
});

describe('outputLimit', () => {
  it('has a default, and takes whole bytes', () => {
    expect(outputLimit()).toBe(16 * 2 ** 20);
    expect(outputLimit(0)).toBe(0);
    expect(outputLimit(512 * 2 ** 20)).toBe(512 * 2 ** 20);
  });
  it.each([-1, 1.5, NaN, 512 * 2 ** 20 + 1, '5' as unknown as number])('refuses %j', (value) =>
    expect(failure(() => outputLimit(value)).field).toBe('maxOutputBytes'),
  );
});

describe('checkPid', () => {
  it('takes what a process can have', () => expect(checkPid(1)).toBe(1));
  it.each([0, -1, 1.5, NaN, '1' as unknown as number])('refuses %j', (pid) =>
    expect(failure(() => checkPid(pid)).field).toBe('pid'),
  );
});
