import { describe, expect, it } from 'vitest';
import { formatBytes, formatMs, parseBytes, parseMib, parseMs } from '../../../src/config/units.ts';

describe('parseMib', () => {
  it.each([
    [2048, 2048],
    ['2048', 2048],
    ['512M', 512],
    ['2G', 2048],
    ['2GiB', 2048],
    ['1.5g', 1536],
    ['2 GB', 2048],
    ['1T', 1_048_576],
    ['2048K', 2],
  ])('reads %j as %d MiB', (text, mib) => {
    expect(parseMib(text)).toBe(mib);
  });

  it.each(['', 'lots', '-1G', '1K', '1.5', 'G', '1GG', '0x10', undefined, true])(
    'refuses %j',
    (value) => {
      expect(parseMib(value)).toBeUndefined();
    },
  );
});

describe('parseBytes', () => {
  it.each([
    ['1500', 1500],
    ['64K', 65_536],
    ['100m', 104_857_600],
    ['0.5KiB', 512],
    ['2 GB', 2_147_483_648],
  ])('reads %j as %d bytes', (text, bytes) => {
    expect(parseBytes(text)).toBe(bytes);
  });

  it.each(['', 'lots', '-1', '1.5', '0.3K', '1GG', '0x10'])('refuses %j', (text) => {
    expect(parseBytes(text)).toBeUndefined();
  });
});

describe('parseMs', () => {
  it.each([
    [1500, 1500],
    ['1500', 1500],
    ['90s', 90_000],
    ['1.5s', 1500],
    ['5m', 300_000],
    ['250ms', 250],
    ['2h', 7_200_000],
    ['1d', 86_400_000],
  ])('reads %j as %d ms', (text, ms) => {
    expect(parseMs(text)).toBe(ms);
  });

  it.each(['', 'soon', '5 weeks', '-3s', '1.5'])('refuses %j', (value) => {
    expect(parseMs(value)).toBeUndefined();
  });
});

describe('formats', () => {
  it('writes sizes with at most one decimal', () => {
    expect([0, 1023, 1536, 1024 ** 3, 1024 ** 5].map(formatBytes)).toEqual([
      '0 B',
      '1023 B',
      '1.5 KiB',
      '1 GiB',
      '1024 TiB',
    ]);
  });

  it('writes durations for people', () => {
    expect([850, 4200, 185_000, 7_800_000, 273_600_000].map(formatMs)).toEqual([
      '850 ms',
      '4.2 s',
      '3 m 05 s',
      '2 h 10 m',
      '3 d 4 h',
    ]);
  });
});
