import { expect, it } from 'vitest';
import { ConfigError } from '../../../src/errors.ts';
import { parseUla, randomUla, ulaPairAt } from '../../../src/network/ula.ts';

it('each number is two addresses of a prefix', () => {
  const pool = parseUla('fd12:3456:789a::/64');
  expect(ulaPairAt(pool, 1)).toEqual({
    gatewayAddress: 'fd12:3456:789a::2',
    guestAddress: 'fd12:3456:789a::3',
  });
  expect(ulaPairAt(pool, 32_768)).toEqual({
    gatewayAddress: 'fd12:3456:789a::1:0',
    guestAddress: 'fd12:3456:789a::1:1',
  });
});

it('a prefix is known by one text, however it is written', () => {
  const { cidr, first, capacity } = parseUla('FD12:3456:0:0:1::/112');
  expect({ cidr, first, capacity }).toEqual({
    cidr: 'fd12:3456:0:0:1::/112',
    first: 0xfd12_3456_0000_0000_0001_0000_0000_0000n,
    capacity: 32_768,
  });
  expect(parseUla('fd12:3456:0::0/48')).toMatchObject({
    cidr: 'fd12:3456::/48',
    capacity: 65_536,
  });
});

it('a random one is a /64 of the kind that hosts make up, and never twice the same', () => {
  const made = Array.from({ length: 50 }, randomUla);
  for (const cidr of made) expect(parseUla(cidr).cidr).toBe(cidr);
  for (const cidr of made) expect(cidr).toMatch(/^fd[0-9a-f]{0,2}:.*\/64$/);
  expect(new Set(made).size).toBe(50);
});

it.each([
  ...['', 'fd00::', 'fd00::/47', 'fd00::/113', 'fd00::/064', 'fd00::1/64', 'fd00::/64/64'],
  ...[
    'fe80::/64',
    '2001:db8::/64',
    'fbff::/64',
    'fd00::%lo/64',
    '::ffff:10.0.0.0/112',
    'fd00::1.0.0.0/64',
  ],
  ...['10.210.0.0/16', 'fd00::/six', 'fd00:::/64'],
])('is no prefix: %j', (cidr) => {
  expect(() => parseUla(cidr)).toThrow(ConfigError);
});
