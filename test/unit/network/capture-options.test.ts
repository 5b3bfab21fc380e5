import { PassThrough } from 'node:stream';
import { describe, expect, it } from 'vitest';
import { ConfigError } from '../../../src/errors.ts';
import { checkCapture, type CaptureOptions } from '../../../src/network/index.ts';

describe('checkCapture', () => {
  it('fills in 100 MiB of whole packets, without an end in time', () => {
    expect(checkCapture({ file: 'x.pcap' }, 'capture')).toEqual({
      target: 'x.pcap',
      maxBytes: 104_857_600,
      snaplen: 262_144,
      durationMs: undefined,
      follow: false,
    });
  });

  it('takes a stream, and bounds', () => {
    const stream = new PassThrough();
    const bounds = { maxBytes: 24, snaplen: 14, durationMs: 1 };
    expect(checkCapture({ stream, ...bounds, follow: true }, 'capture')).toEqual({
      ...{ target: stream, follow: true },
      ...bounds,
    });
  });

  it.each<[CaptureOptions, string]>([
    [{}, 'file'],
    [{ file: '' }, 'file'],
    [{ file: 'a\0b' }, 'file'],
    [{ file: 'x', stream: new PassThrough() }, 'file'],
    [{ file: 7 as unknown as string }, 'file'],
    [{ file: 'x', maxBytes: 23 }, 'maxBytes'],
    [{ file: 'x', maxBytes: Infinity }, 'maxBytes'],
    [{ file: 'x', snaplen: 13 }, 'snaplen'],
    [{ file: 'x', snaplen: 262_145 }, 'snaplen'],
    [{ file: 'x', durationMs: 0 }, 'durationMs'],
    [{ file: 'x', durationMs: 2 ** 31 }, 'durationMs'],
    [{ file: 'x', snapLen: 1 } as CaptureOptions, 'snapLen'],
  ])('refuses %o by its name', (o, field) => {
    const error = refusal(() => checkCapture(o, 'vm.pcap'));
    expect(error.field).toBe(`vm.pcap.${field}`);
    expect(error.hint).not.toBe('');
  });
});

function refusal(check: () => unknown): ConfigError {
  try {
    check();
  } catch (error) {
    if (error instanceof ConfigError) return error;
  }
  throw new Error('it was not refused');
}
