import { expect, it } from 'vitest';
import { DEFAULT_LIMITS } from '../../../nft/index.ts';
import { ConfigError } from '../../../src/errors.ts';
import {
  effectiveLimits,
  formatBandwidth,
  makeLimits,
  parseBandwidth,
  parsePerSecond,
  type LimitOptions,
} from '../../../src/network/limits.ts';

it('a bandwidth is written as tc(8) has it, in bits', () => {
  const texts = ['10mbit', '1.5Gbit', '800kbit/s', '9600bit', ' none '];
  expect(texts.map(parseBandwidth)).toEqual([10e6, 1.5e9, 8e5, 9600, 'none']);
  for (const text of ['', '10', '10mbps', '10MB/s', '-1mbit', 'mbit', '1e3bit'])
    expect(parseBandwidth(text), text).toBeUndefined();
  expect([10e6, 1.5e9, 9600, 'none' as const].map(formatBandwidth)).toEqual([
    '10 mbit/s',
    '1.5 gbit/s',
    '9.6 kbit/s',
    'none',
  ]);
});

it('a rate is so many a second', () => {
  const texts = ['50/s', '50/second', '50', 'none'];
  expect(texts.map(parsePerSecond)).toEqual([50, 50, 50, 'none']);
  for (const text of ['', '50/m', '/s', '1.5/s', '-5'])
    expect(parsePerSecond(text), text).toBeUndefined();
});

it('what is not said is the default, which VMs share; what is said is the VM’s own', () => {
  expect(makeLimits()).toEqual(DEFAULT_LIMITS);
  const own = {
    uploadBitsPerSecond: 10e6,
    newConnectionsPerSecond: 50,
    connections: 'none',
  } as const;
  expect(makeLimits(own)).toEqual({
    ...DEFAULT_LIMITS,
    uploadBytesPerSecond: 1_250_000,
    newConnectionsPerSecond: 50,
    newConnectionsBurst: 100,
    connections: undefined,
  });
  expect(effectiveLimits(own)).toEqual({ ...own, downloadBitsPerSecond: 'none' });
  // As it is after it was on disk.
  expect(makeLimits(JSON.parse(JSON.stringify(own)) as LimitOptions)).toEqual(makeLimits(own));
});

it.each([
  ['uploadBitsPerSecond', 100],
  ['downloadBitsPerSecond', 2 ** 40],
  ['newConnectionsPerSecond', 0],
  ['connections', 1.5],
  ['connections', '5'],
  ['bandwidth', 5],
])('a bound that is none is refused: %s %j', (name, value) => {
  const make = () => makeLimits({ [name]: value });
  expect(make).toThrow(ConfigError);
  expect(make).toThrow(`network.limits.${name} is`);
});
