import { describe, expect, it } from 'vitest';
import { holesIn, pcapOf } from '../../../src/vm/vm-capture.ts';

const pcap = { file: 'x.pcap', maxBytes: 1000 };

describe('pcapOf', () => {
  it('is none where none is asked for, whatever the network', () => {
    expect(pcapOf(undefined, { network: 'user' })).toBeUndefined();
  });

  it.each(['nat-filtered', 'bridge=br0'] as const)('can be had with %s', (network) => {
    expect(pcapOf(pcap, { network })).toMatchObject({ target: 'x.pcap', maxBytes: 1000 });
  });

  it('follows no VM into another life: who made it has one', () => {
    expect(() => pcapOf({ ...pcap, follow: true }, { network: 'nat-filtered' })).toThrow(
      expect.objectContaining({ field: 'vm.pcap.follow' }) as Error,
    );
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

describe('holesIn', () => {
  const had = { packets: 3, bytes: 2048, dropped: 0 };

  it.each(['closed', 'duration', 'vm-ended'] as const)(
    'are none where it ended as %s',
    (reason) => {
      expect(holesIn({ ...had, reason })).toBeUndefined();
      expect(holesIn({ ...had, reason, dropped: undefined })).toBeUndefined();
    },
  );

  it('are what came after its bound, or a full disk', () => {
    const bound = holesIn({ ...had, reason: 'max-bytes' });
    expect(bound?.message).toContain('3 packets, 2 KiB: its bound is reached');
    const full = holesIn({ ...had, reason: 'failed', error: new Error('no space') });
    expect(full?.message).toContain('no space');
  });

  it('are what it was too slow for', () => {
    expect(holesIn({ ...had, reason: 'closed', dropped: 7 })?.message).toContain('lacks 7');
  });
});
