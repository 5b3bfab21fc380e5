import { describe, expect, it } from 'vitest';
import { macOf } from '../../../src/network/nic.ts';

describe('macOf', () => {
  it('is the id as a unicast address of local administration', () => {
    expect(macOf('0123456789ab')).toBe('02:23:45:67:89:ab');
    expect(macOf('ffffffffffff')).toBe('fe:ff:ff:ff:ff:ff');
    expect(macOf('0d0000000000')).toBe('0e:00:00:00:00:00');
  });
});
