import { describe, expect, it } from 'vitest';
import { parseQmpArguments, parseQmpLine } from '../../../src/cli/qmp-input.ts';

describe('parseQmpLine', () => {
  it.each([
    ['query-status', { command: 'query-status' }],
    ['job-cancel {"id": "a b"}', { command: 'job-cancel', args: { id: 'a b' } }],
    ['job-cancel   { }', { command: 'job-cancel', args: {} }],
    ['{"execute": "stop"}', { command: 'stop', oob: false }],
    [
      '{"execute": "job-cancel", "arguments": {"id": "x"}, "id": 7}',
      { command: 'job-cancel', args: { id: 'x' }, oob: false },
    ],
    ['{"exec-oob": "migrate-pause"}', { command: 'migrate-pause', oob: true }],
  ])('reads %s', (line, input) => {
    expect(parseQmpLine(line)).toEqual(input);
  });

  it.each([
    ['job-cancel id', 'arguments of job-cancel: not JSON: id'],
    ['job-cancel {"id": "x"} more', 'arguments of job-cancel: not JSON'],
    ['job-cancel "x"', 'arguments of job-cancel: not a JSON object: "x"'],
    ['job-cancel null', 'arguments of job-cancel: not a JSON object: null'],
    ['{"execute": ', 'the line: not JSON'],
    ['{}', 'the line has no "execute"'],
    ['{"execute": "stop", "arguments": []}', 'arguments: not a JSON object: []'],
  ])('refuses %s', (line, message) => {
    expect(() => parseQmpLine(line)).toThrow(
      expect.objectContaining({
        code: 'ERR_CONFIG',
        message: expect.stringContaining(message),
        hint: expect.any(String),
      }),
    );
  });
});

describe('parseQmpArguments', () => {
  it('names the command whose arguments are wrong, and where', () => {
    expect(parseQmpArguments('stop', undefined)).toBeUndefined();
    expect(() => parseQmpArguments('blockdev-add', '{"a": 1,}')).toThrow(
      /^arguments of blockdev-add: not JSON: \{"a": 1,\} \(.*position 8/,
    );
  });
});
