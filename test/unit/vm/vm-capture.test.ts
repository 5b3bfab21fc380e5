import { describe, expect, it } from 'vitest';
import { pcapOf } from '../../../src/vm/vm-capture.ts';

const pcap = { file: 'x.pcap', maxBytes: 1000 };

describe('pcapOf', () => {
  it('is none where none is asked for, whatever the network', () => {
    expect(pcapOf(undefined, { network: 'user' })).toBeUndefined();
  });

  it.each(['nat-filtered', 'bridge=br0'] as const)('can be had with %s', (network) => {
    expect(pcapOf(pcap, { network })).toMatchObject({ target: 'x.pcap', maxBytes: 1000 });
  });

  it.each([
    ['isolated', 'the network is isolated'],
    ['user', 'never leave QEMU'],
    [undefined, 'the network is none'],
  ] as const)('cannot be had with %s, and it says what to do', (network, why) => {
    expect(() => pcapOf(pcap, { network })).toThrow(
      expect.objectContaining({
        field: 'vm.pcap',
        message: expect.stringContaining(why) as string,
        hint: expect.stringContaining('nat-filtered') as string,
      }) as Error,
    );
  });
});
