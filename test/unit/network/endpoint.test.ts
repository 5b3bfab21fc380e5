import { expect, it } from 'vitest';
import { ConfigError } from '../../../src/errors.ts';
import { DEFAULT_POOL, endpointAt, firstFree, parsePool } from '../../../src/network/endpoint.ts';
import { parseUla } from '../../../src/network/ula.ts';

const pool = parsePool(DEFAULT_POOL);

it('each number is a tap with two addresses of its own', () => {
  expect(pool).toEqual({ cidr: '10.210.0.0/16', first: 0x0ad20000, capacity: 32768 });
  expect(endpointAt(pool, 1)).toEqual({
    index: 1,
    tap: 'qmpa1',
    gatewayAddress: '10.210.0.2',
    guestAddress: '10.210.0.3',
  });
  expect(endpointAt(pool, 32767)).toMatchObject({
    tap: 'qmpa32767',
    guestAddress: '10.210.255.255',
  });
});

it('in IPv6 it has two as well, by the same number, where there are any', () => {
  expect(endpointAt(pool, 1)).not.toHaveProperty('v6');
  expect(endpointAt(pool, 2, parseUla('fd12::/64'))).toMatchObject({
    tap: 'qmpa2',
    gatewayAddress: '10.210.0.4',
    v6: { gatewayAddress: 'fd12::4', guestAddress: 'fd12::5' },
  });
});

it('the lowest free number is taken, and none where all are', () => {
  expect(firstFree(pool, ['lo', 'eth0'])).toBe(1);
  expect(firstFree(pool, ['qmpa1', 'qmpa3', 'qmpa02'])).toBe(2);
  expect(firstFree(parsePool('192.168.7.0/29'), ['qmpa1', 'qmpa2', 'qmpa3'])).toBeUndefined();
  const many = Array.from({ length: 32_767 }, (_, n) => `qmpa${n + 1}`);
  expect(firstFree(parsePool('10.128.0.0/15'), many)).toBe(32_768);
  expect(firstFree(parseUla('fd12::/112'), many)).toBeUndefined();
});

it.each([
  '',
  '10.0.0.0',
  '10.0.0.0/8',
  '10.0.0.0/30',
  '10.0.0.1/24',
  '10.0.0.256/24',
  '8.8.8.0/24',
  'fd00::/64',
  '172.32.0.0/16',
  '127.0.0.0/16',
])('is no pool: %j', (cidr) => {
  expect(() => parsePool(cidr)).toThrow(ConfigError);
});

it.each(['172.16.0.0/16', '192.168.4.0/24', '100.64.0.0/15', '10.210.0.8/29'])(
  'is a pool: %s',
  (cidr) => {
    expect(parsePool(cidr).cidr).toBe(cidr);
  },
);
