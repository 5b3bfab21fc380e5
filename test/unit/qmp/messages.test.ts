import { describe, expect, it } from 'vitest';
import { encodeCommand, parseMessage } from '../../../qmp/messages.ts';

describe('parseMessage', () => {
  it.each([
    ['{"return": {"a": 1}, "id": "q1"}', { kind: 'return', id: 'q1', value: { a: 1 } }],
    ['{"return": []}', { kind: 'return', id: undefined, value: [] }],
    [
      '{"id": 7, "error": {"class": "GenericError", "desc": "no"}}',
      { kind: 'error', id: 7, errorClass: 'GenericError', desc: 'no' },
    ],
    [
      '{"event": "STOP", "timestamp": {"seconds": -1, "microseconds": -1}}',
      { kind: 'event', event: { event: 'STOP', timestamp: { seconds: -1, microseconds: -1 } } },
    ],
    [
      '{"QMP": {"version": {"qemu": {"micro": 2, "minor": 0, "major": 10}}, "capabilities": []}}',
      {
        kind: 'greeting',
        version: { major: 10, minor: 0, micro: 2, package: '' },
        capabilities: [],
      },
    ],
  ])('reads %s', (line, message) => {
    expect(parseMessage(line)).toEqual(message);
  });

  it.each(['null', '1', '"return"', '[{"return": 1}]', '{}', '{"error": {"class": "x"}}', '{'])(
    'refuses %s',
    (line) => {
      expect(() => parseMessage(line)).toThrow(/^QMP message is /);
    },
  );

  it('does not take a member called __proto__ for more than that', () => {
    expect(() => parseMessage('{"__proto__": {"return": 1}}')).toThrow('neither answer');
  });
});

describe('encodeCommand', () => {
  it.each([
    [encodeCommand('stop', undefined, 'q1', false), '{"execute":"stop","id":"q1"}'],
    [encodeCommand('stop', {}, 'q1', false), '{"execute":"stop","arguments":{},"id":"q1"}'],
    [encodeCommand('yank', undefined, 'q1', true), '{"exec-oob":"yank","id":"q1"}'],
    // Members left at undefined are not there, and a line stays a line.
    [
      encodeCommand('x', { a: undefined, b: 'l1\nl2\u2028' }, 'q1', false),
      '{"execute":"x","arguments":{"b":"l1\\nl2\u2028"},"id":"q1"}',
    ],
  ])('%s', (line, expected) => {
    expect(line).toBe(expected);
  });
});
