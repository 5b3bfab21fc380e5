import { describe, expect, it } from 'vitest';
import { isSupported, parseVersion } from '../../../src/vm/launcher.ts';

describe('the version of QEMU', () => {
  it.each([
    ['QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)', '7.2.22'],
    ['QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2)\nCopyright (c)', '10.0.2'],
    ['QEMU emulator version 8.2', '8.2'],
    ['bash, version five', undefined],
    ['', undefined],
  ])('%j is %j', (text, version) => expect(parseVersion(text)).toBe(version));

  it.each(['7.2', '7.2.22', '7.10', '8.0', '10.0.2'])('%s is supported', (version) =>
    expect(isSupported(version)).toBe(true),
  );
  it.each(['7.1.9', '6.2', '2.12.0'])('%s is not', (version) =>
    expect(isSupported(version)).toBe(false),
  );
});
