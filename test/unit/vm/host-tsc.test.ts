import { describe, expect, it } from 'vitest';
import { tscKhz } from '../../../src/vm/host-tsc.ts';

describe('tscKhz', () => {
  it('takes what cpufreq says before what /proc/cpuinfo says', () => {
    expect(tscKhz('2100000\n', 'cpu MHz\t\t: 3400.123\n')).toBe(2_100_000);
  });

  it('takes the first processor of /proc/cpuinfo where there is no cpufreq', () => {
    expect(tscKhz('', 'model\t: 1\ncpu MHz\t\t: 2095.999\ncpu MHz\t\t: 1.0\n')).toBe(2_095_999);
  });

  it('is undefined where neither says anything', () => {
    expect(tscKhz('', 'model\t: 1\n')).toBeUndefined();
  });
});
