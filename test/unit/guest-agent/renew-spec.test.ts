import { describe, expect, it } from 'vitest';
import { parseRenewSpec } from '../../../guest-agent/renew-spec.ts';

const good = {
  entropy: Buffer.alloc(32, 7).toString('base64'),
  unixMs: 1_700_000_000_000,
  hostname: 'clone-1.example',
  machineId: '0123456789abcdef0123456789abcdef',
  bootId: '01234567-89ab-cdef-0123-456789abcdef',
  durable: true,
};

describe('parseRenewSpec', () => {
  it('takes what the host sends, and nothing besides', () => {
    expect(parseRenewSpec(JSON.stringify({ ...good, more: 1 }))).toEqual(good);
  });

  it.each([
    ['entropy', 'not base64!'],
    ['entropy', Buffer.alloc(31).toString('base64')],
    ['entropy', Buffer.alloc(4097).toString('base64')],
    ['unixMs', -1],
    ['unixMs', 'now'],
    ['hostname', '-x'],
    ['hostname', 'a\nb'],
    ['machineId', '0123456789ABCDEF0123456789ABCDEF'],
    ['machineId', ''],
    ['bootId', '../../etc/passwd'],
    ['bootId', undefined],
    ['durable', 'yes'],
    ['durable', undefined],
  ])('refuses %s %j', (name, value) => {
    expect(() => parseRenewSpec(JSON.stringify({ ...good, [name]: value }))).toThrow(
      expect.objectContaining({ code: 'EINVAL', message: expect.stringContaining(name) }),
    );
  });
});
