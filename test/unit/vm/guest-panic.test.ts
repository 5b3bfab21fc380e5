import { describe, expect, it } from 'vitest';
import {
  extractPanic,
  PanicDetector,
  panicSummary,
  printable,
} from '../../../src/vm/guest-panic.ts';

/** As a 6.12 kernel printed it, shortened. */
const PANIC = `Kernel panic - not syncing: sysrq triggered crash
CPU: 0 UID: 0 PID: 312 Comm: sh Not tainted 6.12.48+deb13-amd64 #1
Call Trace:
 <TASK>
 panic+0x118/0x2e1
---[ end Kernel panic - not syncing: sysrq triggered crash ]---`;

describe('PanicDetector', () => {
  it('finds the mark wherever the pieces are cut', () => {
    const all = Buffer.from(`boot\n${PANIC}`);
    for (let cut = 1; cut < 60; cut += 1) {
      const detector = new PanicDetector();
      const found = [detector.push(all.subarray(0, cut)), detector.push(all.subarray(cut, 80))];
      expect(found).toContain(true);
    }
    const slow = new PanicDetector();
    const hits = [...all.subarray(0, 40)].filter((byte) => slow.push(Buffer.from([byte])));
    expect(hits.length).toBeGreaterThan(0);
  });

  it('is not misled by words that are like it', () => {
    const detector = new PanicDetector();
    for (const piece of ['kernel panic?', 'Kernel panic - not', ' synced', '\0\xff', ''])
      expect(detector.push(Buffer.from(piece, 'latin1'))).toBe(false);
  });
});

describe('extractPanic', () => {
  it('is undefined where there was none', () => {
    expect(extractPanic('')).toBeUndefined();
    expect(extractPanic('all is well\nKernel panic - maybe')).toBeUndefined();
  });

  it('takes the text from its message on', () => {
    const panic = extractPanic(`[ 1.0] booting\nlogin: ${PANIC}\n`);
    expect(panic).toBe(PANIC);
    expect(panicSummary(panic ?? '')).toBe('Kernel panic - not syncing: sysrq triggered crash');
  });

  it('has the call trace, although the kernel repeats the message at the end', () => {
    expect(extractPanic(PANIC)).toContain('Call Trace');
  });

  it('puts the init’s last words first, where they are the cause', () => {
    const killed = 'Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000100';
    const console = `qmp-agent init: no root disk (/dev/vda) within 10 s\r\n[ 12.1] ${killed}`;
    const panic = extractPanic(console) ?? '';
    expect(panicSummary(panic)).toBe('qmp-agent init: no root disk (/dev/vda) within 10 s');
    expect(panic).toContain('Attempted to kill init');
  });

  it('does not blame the init for other panics', () => {
    const console = `qmp-agent init: the agent starts\r\n[ 12.1] ${PANIC}`;
    expect(panicSummary(extractPanic(console) ?? '')).toMatch(/^Kernel panic.*sysrq/);
  });

  it('does not take words of the init from long before', () => {
    const console = `qmp-agent init: old\n${'line\n'.repeat(50)}${PANIC}`;
    expect(panicSummary(extractPanic(console) ?? '')).toMatch(/^Kernel panic/);
  });

  it('is bounded, and clean of what a terminal would act on', () => {
    const evil = `${PANIC.slice(0, 40)}\x1b]0;title\x07\x1b[2J\x9b31m${'x'.repeat(100_000)}`;
    const panic = extractPanic(evil) ?? '';
    expect(panic.length).toBeLessThanOrEqual(4_096);
    expect(panic).not.toMatch(/[\x00-\x08\x0b-\x1f\x7f-\x9f]/);
  });
});

describe('printable', () => {
  it.each([
    ['plain\n\ttext é€😀', 'plain\n\ttext é€😀'],
    ['\x1b[31mred\x1b[0m', 'red'],
    ['a\r\nb', 'a\nb'],
    ['\x00\x07\x7f\x9b', ''],
    ['\x1b', ''],
    ['\x1bcSeaBIOS \x1b(B1', 'SeaBIOS 1'],
  ])('%j becomes %j', (text, clean) => expect(printable(text)).toBe(clean));
});
