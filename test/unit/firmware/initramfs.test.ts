import { describe, expect, it } from 'vitest';
import { initramfsPadding } from '../../../firmware/initramfs.ts';
describe('initramfsPadding', () => {
  it.each([0, 1, 4, 5, 4095, 4096, 4100, 7_974_404])(
    'leaves the last page all but empty: %i',
    (bytes) => {
      const padded = bytes + initramfsPadding(bytes);
      expect(padded % 4096).toBe(4);
      expect(padded - bytes).toBeLessThan(4096);
    },
  );
});
