import { describe, expect, it } from 'vitest';
import { differenceOf } from '../../../../src/vm/template/fit.ts';

describe('differenceOf', () => {
  it('names what is another now', () => {
    const saved = { qemuVersion: '7.2.22', cpu: 'A' };
    expect(differenceOf(saved, saved)).toBeUndefined();
    expect(differenceOf(saved, { ...saved, qemuVersion: '10.0.2' })).toBe(
      'QEMU 7.2.22, and this is QEMU 10.0.2',
    );
    expect(differenceOf(saved, { ...saved, cpu: 'B' })).toBe('the processor A, and this is B');
  });
});
