import { describe, expect, it } from 'vitest';
import { LIMITS } from '../../../guest-agent/protocol.ts';
import { RequestError } from '../../../guest-agent/request-error.ts';
import { parseExecSpec, parseSignalRequest } from '../../../guest-agent/spec.ts';
import { randomBuffer, seeded, whole } from './random.ts';

describe('parseExecSpec', () => {
  it('takes what it knows and nothing else', () => {
    const spec = {
      argv: ['ls', '-l', ''],
      cwd: '/tmp',
      env: { A: '1', 'B C': 'two\nlines' },
      user: 'root',
      tag: 'mine',
      stdin: true,
      timeoutMs: 1500,
      replayBytes: 0,
      holdStart: true,
      onDisconnect: 'kill',
    };
    expect(parseExecSpec(JSON.stringify({ ...spec, uid: 0, detached: true }))).toEqual(spec);
    expect(parseExecSpec('{"shell":"echo $HOME"}')).toEqual({ shell: 'echo $HOME' });
  });

  it.each([
    ['', 'body is not JSON'],
    ['null', 'must be a JSON object'],
    ['[]', 'must be a JSON object'],
    ['{}', 'exactly one of argv and shell'],
    ['{"argv":["a"],"shell":"b"}', 'exactly one of argv and shell'],
    ['{"argv":[]}', 'argv must be'],
    ['{"argv":[""]}', 'argv must be'],
    ['{"argv":["a",1]}', 'argv must be'],
    ['{"argv":["a\\u0000b"]}', 'argv must be'],
    ['{"argv":"ls"}', 'argv must be'],
    ['{"shell":"a\\u0000b"}', 'shell must be'],
    ['{"shell":1}', 'shell must be'],
    ['{"shell":"a","cwd":["/"]}', 'cwd must be'],
    ['{"shell":"a","user":0}', 'user must be'],
    ['{"shell":"a","env":[]}', 'env must be'],
    ['{"shell":"a","env":{"":"x"}}', 'is not a name'],
    ['{"shell":"a","env":{"A=B":"x"}}', 'is not a name'],
    ['{"shell":"a","env":{"A":1}}', 'is not a name'],
    ['{"shell":"a","timeoutMs":0}', 'timeoutMs must be'],
    ['{"shell":"a","timeoutMs":1e12}', 'timeoutMs must be'],
    ['{"shell":"a","timeoutMs":"5"}', 'timeoutMs must be'],
    [`{"shell":"a","replayBytes":${LIMITS.replayBytes + 1}}`, 'replayBytes must be'],
    ['{"shell":"a","onDisconnect":"maybe"}', 'onDisconnect must be'],
  ])('%s', (text, message) => {
    expect(() => parseExecSpec(text)).toThrow(RequestError);
    expect(() => parseExecSpec(text)).toThrow(message);
  });

  it('never repeats the value of a variable', () => {
    const text = '{"shell":"a","env":{"TOKEN":"hunter2\\u0000"}}';
    expect(() => parseExecSpec(text)).toThrow(/TOKEN/);
    expect(() => parseExecSpec(text)).not.toThrow(/hunter2/);
  });

  it('meets damaged specs with a RequestError and nothing else', () => {
    const random = seeded(17);
    const good = Buffer.from(
      '{"argv":["a","b"],"env":{"A":"1"},"timeoutMs":5,"stdin":true,"user":"x"}',
    );
    for (let i = 0; i < 2000; i += 1) {
      const bad = Buffer.from(good);
      randomBuffer(random, 1 + whole(random, 4)).copy(bad, whole(random, bad.length));
      try {
        parseExecSpec(bad.toString('utf8'));
      } catch (error) {
        expect(error).toBeInstanceOf(RequestError);
      }
    }
  });
});

describe('parseSignalRequest', () => {
  it('takes signals by name', () => {
    expect(parseSignalRequest('{"signal":"SIGTERM"}')).toEqual({ signal: 'SIGTERM', tree: false });
    expect(parseSignalRequest('{"signal":"SIGKILL","tree":true}')).toEqual({
      signal: 'SIGKILL',
      tree: true,
    });
  });

  it.each(['{}', '{"signal":9}', '{"signal":"TERM"}', '{"signal":"toString"}', '"SIGTERM"'])(
    'refuses %s',
    (text) => {
      expect(() => parseSignalRequest(text)).toThrow(RequestError);
    },
  );
});
