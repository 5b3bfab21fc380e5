import { describe, expect, it } from 'vitest';
import { FrameError } from '../../../guest-agent/frames.ts';
import {
  parseExit,
  parseList,
  parsePing,
  parseStarted,
  parseStatus,
  parseThaw,
} from '../../../src/guest/replies.ts';
import { seeded, whole } from '../guest-agent/random.ts';

const PING = { agentVersion: '0.1.0', protocol: 1, node: '20.19.2', bootId: 'a-b-c' };
const STATUS = {
  uptimeSeconds: 1.5,
  memory: { totalBytes: 100, availableBytes: 50 },
  load: [0, 0.1, 2],
  processes: 3,
  disk: { totalBytes: 1000, availableBytes: 10 },
  agentRssBytes: 5,
  execs: 0,
  unixMs: 1.7e12,
};
const EXIT = { exitCode: 3, durationMs: 1.5, timedOut: false };
const INFO = {
  ...{ id: '1-2', pid: 77, command: ['ls', '-l'], user: 'agent', cwd: '/', tag: 't' },
  ...{ startedAtMs: 5, running: false, exit: EXIT },
};
const json = (value: unknown) => Buffer.from(JSON.stringify(value));

describe('honest replies', () => {
  it('are taken', () => {
    expect(parsePing(PING)).toEqual(PING);
    expect(parseStatus(STATUS)).toEqual(STATUS);
    expect(parseList([INFO])).toEqual([INFO]);
    expect(parseThaw({ stoodMs: 1.5, more: 1 })).toEqual({ stoodMs: 1.5 });
    expect(parseStarted(json({ id: '1-2', pid: 77 }))).toEqual({ id: '1-2', pid: 77 });
    expect(parseExit(json(EXIT))).toEqual(EXIT);
    const killed = { signal: 'SIGKILL', durationMs: 0, timedOut: true };
    expect(parseExit(json(killed))).toEqual(killed);
  });

  it('lose what nobody asked for', () => {
    const more = { evil: 'x'.repeat(1000), toString: 1 };
    expect(parsePing({ ...PING, ...more })).toEqual(PING);
    expect(parseStatus({ ...STATUS, ...more })).toEqual(STATUS);
    expect(parseList([{ ...INFO, ...more }])).toEqual([INFO]);
    expect(parseExit(json({ ...EXIT, ...more }))).toEqual(EXIT);
  });
});

describe('dishonest replies', () => {
  it.each([
    undefined,
    null,
    [],
    'pong',
    {},
    { ...PING, agentVersion: '\x1b[31mred' },
    { ...PING, node: 'v'.repeat(65) },
    { ...PING, bootId: '' },
    { ...PING, protocol: '1' },
    { ...PING, protocol: 1.5 },
  ])('no ping: %j', (value) => {
    expect(() => parsePing(value)).toThrow(FrameError);
  });

  it.each([
    null,
    { ...STATUS, uptimeSeconds: '1' },
    { ...STATUS, uptimeSeconds: -1 },
    { ...STATUS, memory: null },
    { ...STATUS, memory: { totalBytes: 1 } },
    { ...STATUS, disk: [1, 2] },
    { ...STATUS, load: [1, 2] },
    { ...STATUS, load: [1, 2, null] },
  ])('no status: %j', (value) => {
    expect(() => parseStatus(value)).toThrow(FrameError);
  });

  it.each([
    {},
    [null],
    [{ ...INFO, id: '../1' }],
    [{ ...INFO, pid: 0 }],
    [{ ...INFO, pid: 2 ** 23 }],
    [{ ...INFO, command: 'ls' }],
    [{ ...INFO, command: [1] }],
    [{ ...INFO, tag: {} }],
    [{ ...INFO, running: 1 }],
    [{ ...INFO, exit: {} }],
    [INFO, 7],
  ])('no list: %j', (value) => {
    expect(() => parseList(value)).toThrow(FrameError);
  });

  it.each([
    '',
    'null',
    '[]',
    '{"id":"1","pid":1.5}',
    '{"id":"a b","pid":1}',
    '{"id":1,"pid":1}',
    '{"pid":1}',
  ])('no first frame: %s', (text) => {
    expect(() => parseStarted(Buffer.from(text))).toThrow(FrameError);
  });

  it.each([
    '',
    '{',
    '{"durationMs":1,"timedOut":false}',
    '{"exitCode":256,"durationMs":1,"timedOut":false}',
    '{"exitCode":0,"signal":"SIGTERM","durationMs":1,"timedOut":false}',
    '{"signal":"rm -rf","durationMs":1,"timedOut":false}',
    '{"exitCode":0,"durationMs":"1","timedOut":false}',
    '{"exitCode":0,"durationMs":1e999,"timedOut":false}',
    '{"exitCode":0,"durationMs":1}',
  ])('no end: %s', (text) => {
    expect(() => parseExit(Buffer.from(text))).toThrow(FrameError);
  });

  it('are met with a FrameError, however they are damaged', () => {
    const random = seeded(23);
    const parsers = [
      [PING, parsePing],
      [STATUS, parseStatus],
      [[INFO], parseList],
    ] as const;
    const values: unknown[] = [null, -1, 1e300, '', 'x', [], {}, true, '\0', ['x'], { length: 3 }];
    for (let i = 0; i < 3000; i += 1) {
      const [good, parse] = parsers[whole(random, parsers.length)]!;
      const bad = damage(JSON.parse(JSON.stringify(good)), random, values);
      try {
        parse(bad);
      } catch (error) {
        expect(error).toBeInstanceOf(FrameError);
      }
    }
  });
});

/** Puts a wrong value somewhere. */
function damage(value: unknown, random: () => number, values: readonly unknown[]): unknown {
  if (typeof value !== 'object' || value === null || random() < 0.2) {
    return values[whole(random, values.length)];
  }
  const keys = Object.keys(value);
  const key = keys[whole(random, keys.length)] ?? '0';
  const record = value as Record<string, unknown>;
  record[key] = damage(record[key], random, values);
  return value;
}

describe('a dishonest thaw', () => {
  it.each([undefined, null, {}, { stoodMs: -1 }, { stoodMs: '5' }, { stoodMs: Infinity }])(
    'is refused: %j',
    (value) => {
      expect(() => parseThaw(value)).toThrow(FrameError);
    },
  );
});
