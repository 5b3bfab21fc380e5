import { describe, expect, it } from 'vitest';
import { divideMemory, sumMemory } from '../../../src/bench/process-memory.ts';

/** A mapping as proc_pid_smaps(5) shows it, cut down to the fields around those that count. */
const mapping = (head: string, o: { pss: number; anonymous?: number }) =>
  [
    head,
    'Size:               1024 kB',
    'Rss:                 900 kB',
    `Pss:      ${String(o.pss).padStart(10)} kB`,
    'Pss_Dirty:           700 kB',
    'Shared_Clean:          0 kB',
    `Anonymous:${String(o.anonymous ?? o.pss).padStart(10)} kB`,
    'VmFlags: rd wr mr mw me',
    '',
  ].join('\n');

const SMAPS = [
  mapping('55d0a0000000-55d0a0800000 r-xp 00002000 fe:00 1234    /usr/bin/qemu-system-x86_64', {
    ...{ pss: 40, anonymous: 0 },
  }),
  mapping('55d0a1000000-55d0a1100000 rw-p 00000000 00:00 0          [heap]', { pss: 300 }),
  mapping('7f0000000000-7f0040000000 rw-p 00000000 fe:00 99   /data/templates/t x/memory', {
    ...{ pss: 500, anonymous: 120 },
  }),
  mapping('7f0050000000-7f0058000000 rwxp 00000000 00:00 0 ', { pss: 2000 }),
  mapping('7f0060000000-7f0060001000 rw-s 00000000 00:01 7    /memfd:tcg-jit (deleted)', {
    ...{ pss: 8, anonymous: 0 },
  }),
].join('');

describe('the memory of a QEMU', () => {
  it('is divided by what it is for', () => {
    expect(divideMemory(SMAPS, '/data/templates/t x')).toEqual({
      guestOwn: 120 * 1024,
      guestShared: 380 * 1024,
      codeCache: 2000 * 1024,
      heap: 308 * 1024,
      program: 40 * 1024,
    });
  });

  it('of another template is a file like others', () => {
    const { guestOwn, program } = divideMemory(SMAPS, '/data/templates/t');
    expect({ guestOwn, program }).toEqual({ guestOwn: 0, program: 540 * 1024 });
  });

  it('is the sum of its parts', () => {
    expect(sumMemory(divideMemory(SMAPS, '/data/templates/t x'))).toBe(2848 * 1024);
    expect(sumMemory(divideMemory('', '/x'))).toBe(0);
  });
});
