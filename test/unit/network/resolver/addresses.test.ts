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
    ['::', '::/96'],
    ['::1', '::/96'],
    ['::10.0.0.1', '::/96'],
    ['::ffff:8.8.8.8', '::ffff:0:0/96'],
    ['::FFFF:7f00:1', '::ffff:0:0/96'],
    ['64:ff9b::a9fe:a9fe', '64:ff9b::/96'],
    ['64:ff9b:1::1', '::/3'],
    ['100::1', '::/3'],
    ['2001::1', '2001::/23'],
    ['2001:1ff:ffff::', '2001::/23'],
    ['2001:db8::1', '2001:db8::/32'],
    ['2002:a00:1::', '2002::/16'],
    ['3fff:fff::1', '3fff::/20'],
    ['4000::', '4000::/2'],
    ['5f00::1', '4000::/2'],
    ['fd12::1', 'fc00::/7'],
    ['fe80::1', 'fe80::/10'],
    ['fec0::1', '8000::/1'],
    ['ff02::fb', 'ff00::/8'],
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
    '2000::1',
    '2001:200::',
    '2001:4860:4860::8888',
    '2001:db7:ffff::1',
    '2001:db9::',
    '2003::1',
    '2606:4700:4700::1111',
    '3fff:1000::1',
  ])('%s lies in none', (address) => {
    expect(rangeOf(address, NEVER_RANGES)).toBeUndefined();
  });
});

describe('parseRange', () => {
  it('takes addresses and CIDRs as the rules do', () => {
    expect(rangeOf('10.1.2.3', [parseRange('10.1.2.3', 'f')])).toBeDefined();
    expect(rangeOf('10.1.2.4', [parseRange('10.1.2.3', 'f')])).toBeUndefined();
    expect(rangeOf('10.1.99.4', [parseRange('10.1.0.0/16', 'f')])).toBeDefined();
    expect(rangeOf('fd00::2', [parseRange('FD00:0:0::2', 'f')])).toBeDefined();
    expect(rangeOf('10.1.2.3', [parseRange('::/0', 'f')])).toBeUndefined();
    expect(rangeOf('203.0.113.9', [parseRange('0.0.0.0/0', 'f')])).toBeDefined();
  });

  it.each([
    '',
    '10.0.0',
    '10.0.0.0/33',
    '10.0.0.0/',
    '10.0.0.0/8/8',
    'fd00::1/64',
    'fd00::/129',
    'fd00::%eth0',
    '[fd00::1]',
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
  const rest = '0.'.repeat(23);
  expect(reverseAddress(`b.a.${rest}0.0.0.0.0.d.f.ip6.arpa`)).toBe('fd00::ab');
  expect(reverseAddress(`c.b.a.${rest}0.0.0.0.0.d.f.ip6.arpa`)).toBeUndefined();
  expect(reverseAddress('8.b.d.0.1.0.0.2.ip6.arpa')).toBe('2001:db8::');
  expect(reverseAddress('g.ip6.arpa')).toBeUndefined();
  expect(reverseAddress('00.ip6.arpa')).toBeUndefined();
  expect(reverseAddress('ip6.arpa')).toBeUndefined();
});
