import { describe, expect, it } from 'vitest';
import {
  NEVER_RANGES,
  parseRange,
  rangeOf,
  reverseAddress,
} from '../../../../src/network/resolver/addresses.ts';

describe('ranges that answers never hold', () => {
  it.each([
    ['0.0.0.0', '0.0.0.0/8'],
    ['10.255.255.255', '10.0.0.0/8'],
    ['100.64.0.1', '100.64.0.0/10'],
    ['100.127.255.255', '100.64.0.0/10'],
    ['127.0.0.1', '127.0.0.0/8'],
    ['169.254.169.254', '169.254.0.0/16'],
    ['172.16.0.1', '172.16.0.0/12'],
    ['172.31.255.255', '172.16.0.0/12'],
    ['192.0.0.170', '192.0.0.0/24'],
    ['192.88.99.1', '192.88.99.0/24'],
    ['192.168.1.1', '192.168.0.0/16'],
    ['198.19.0.1', '198.18.0.0/15'],
    ['224.0.0.251', '224.0.0.0/3'],
    ['240.0.0.1', '224.0.0.0/3'],
    ['255.255.255.255', '224.0.0.0/3'],
  ])('%s lies in %s', (address, cidr) => {
    expect(rangeOf(address, NEVER_RANGES)?.cidr).toBe(cidr);
  });

  it.each([
    '1.1.1.1',
    '9.255.255.255',
    '11.0.0.0',
    '100.63.255.255',
    '100.128.0.0',
    '126.255.255.255',
    '128.0.0.0',
    '169.253.255.255',
    '172.15.255.255',
    '172.32.0.0',
    '192.0.1.0',
    '192.167.255.255',
    '198.51.100.1',
    '223.255.255.255',
  ])('%s lies in none', (address) => {
    expect(rangeOf(address, NEVER_RANGES)).toBeUndefined();
  });
});

describe('parseRange', () => {
  it('takes addresses and CIDRs as the rules do', () => {
    expect(rangeOf('10.1.2.3', [parseRange('10.1.2.3', 'f')])).toBeDefined();
    expect(rangeOf('10.1.2.4', [parseRange('10.1.2.3', 'f')])).toBeUndefined();
    expect(rangeOf('10.1.99.4', [parseRange('10.1.0.0/16', 'f')])).toBeDefined();
    expect(rangeOf('203.0.113.9', [parseRange('0.0.0.0/0', 'f')])).toBeDefined();
  });

  it.each([
    '',
    '10.0.0',
    '10.0.0.0/33',
    '10.0.0.0/',
    '10.0.0.0/8/8',
    '::1/128',
    '10.0.0.0/-1',
    '10.1.2.3/16',
  ])('refuses %j', (text) => {
    expect(() => parseRange(text, 'allowAddresses[0]')).toThrow(/allowAddresses\[0\]/);
  });
});

it('reads names of reverse lookups', () => {
  expect(reverseAddress('4.3.2.10.in-addr.arpa')).toBe('10.2.3.4');
  expect(reverseAddress('168.192.in-addr.arpa')).toBe('192.168.0.0');
  expect(reverseAddress('x.3.2.10.in-addr.arpa')).toBeUndefined();
  expect(reverseAddress('5.4.3.2.10.in-addr.arpa')).toBeUndefined();
  expect(reverseAddress('example.org')).toBeUndefined();
});
