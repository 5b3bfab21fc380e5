import { describe, expect, it } from 'vitest';
import { describeCpu } from '../../../../src/vm/template/guest-cpu.ts';

const cpuinfo = (model: string, flags: string) =>
  `processor\t: 0\nmodel name\t: ${model}\nflags\t\t: ${flags}\n\nprocessor\t: 1\n`;

describe('describeCpu', () => {
  it('names the model, and tells processors with other features apart', () => {
    const one = describeCpu(cpuinfo('AMD EPYC', 'fpu sse avx2'));
    expect(one).toMatch(/^AMD EPYC, features [0-9a-f]{12}$/);
    expect(describeCpu(cpuinfo('AMD EPYC', 'fpu sse avx2'))).toBe(one);
    expect(describeCpu(cpuinfo('AMD EPYC', 'fpu sse'))).not.toBe(one);
  });
});
