import { CommanderError } from 'commander';
import { describe, expect, it } from 'vitest';
import { describeError } from '../../../src/cli/report.ts';
import { ConfigError, HostError, LaunchError, TimeoutError } from '../../../src/errors.ts';

describe('describeError', () => {
  it('tells code, hint and whatever else the error knows', () => {
    const error = new ConfigError('wrong', { field: 'vm.vcpus', value: 0, hint: 'give 1' });
    expect(describeError(error)).toEqual({
      code: 'ERR_CONFIG',
      message: 'wrong',
      hint: 'give 1',
      field: 'vm.vcpus',
      value: 0,
      vmId: undefined,
    });
  });

  it('tells the cause, and never a stack', () => {
    const error = new HostError('ERR_HOST_TOOL', 'no tool', { hint: 'x', cause: new Error('why') });
    const told = JSON.stringify(describeError(error));
    expect(told).toContain('"cause":"why"');
    expect(told).not.toContain('report.test.ts');
  });

  it.each([
    [new TimeoutError('boot', 5), 'ERR_TIMEOUT'],
    [new LaunchError('x', { argv: ['qemu'], stderr: 'bad' }), 'ERR_LAUNCH'],
    [Object.assign(new Error('x'), { code: 'EIO' }), 'EIO'],
    [new TypeError('x is not a function'), 'ERR_INTERNAL'],
    ['thrown string', 'ERR_INTERNAL'],
  ])('has a code for %s', (error, code) => {
    expect(describeError(error).code).toBe(code);
  });

  it('turns commander’s guess into a hint, and shows the usage where there is none', () => {
    const guess = new CommanderError(1, 'x', "error: unknown option '--a'\n(Did you mean --b?)");
    expect(describeError(guess, 'usage: u')).toEqual({
      code: 'ERR_USAGE',
      message: "unknown option '--a'",
      hint: 'did you mean --b?',
    });
    const plain = new CommanderError(1, 'x', "error: missing required argument 'command'");
    expect(describeError(plain, 'usage: u').hint).toBe('usage: u');
  });
});
