import { expect, it } from 'vitest';
import { lastLine } from '../../../src/vm/vm-watch.ts';

it('is the last that QEMU said, but for what it says of each isolated VM', () => {
  const noPeer = 'qemu-system-x86_64: warning: nic nic0 has no peer\n';
  expect(lastLine('')).toBe('');
  expect(lastLine(noPeer)).toBe('');
  expect(lastLine(`one\ntwo \n${noPeer}\n`)).toBe('two');
});
