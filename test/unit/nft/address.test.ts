import { describe, expect, test } from 'vitest';
import {
  contains,
  overlaps,
  parseAddress,
  parseAddress6,
  parseCidr,
  parseCidr6,
  versionOf,
  withoutNested,
} from '../../../nft/address.ts';
import { RESERVED_RANGES6, UNROUTABLE_RANGES6 } from '../../../nft/policy.ts';

describe('addresses', () => {
  test.each([
    ['0.0.0.0', 0],
    ['10.210.0.3', 0x0ad20003],
    ['255.255.255.255', 0xffffffff],
  ])('%s', (text, value) => expect(parseAddress(text)).toBe(value));

  test.each([
    '',
    '1.2.3',
    '1.2.3.4.5',
    '1.2.3.256',
    '01.2.3.4',
    '1.2.3.-4',
    '0x1.2.3.4',
    '::1',
    '1.2.3.4 ',
  ])('%j is none', (text) => expect(parseAddress(text)).toBeUndefined());

  test.each([
    ['192.0.2.0/24', 0xc0000200, 0xc00002ff],
    ['192.0.2.7', 0xc0000207, 0xc0000207],
    ['0.0.0.0/0', 0, 0xffffffff],
    ['224.0.0.0/3', 0xe0000000, 0xffffffff],
  ])('range %s', (text, first, last) => expect(parseCidr(text)).toMatchObject({ first, last }));

  test.each([
    '192.0.2.1/24',
    '192.0.2.0/33',
    '192.0.2.0/',
    '192.0.2.0/024',
    '192.0.2.0/24/3',
    'a/8',
  ])('range %s is none', (text) => expect(parseCidr(text)).toBeUndefined());

  test('ranges overlap', () => {
    const [one, two, three] = ['10.0.0.0/8', '10.9.0.0/16', '11.0.0.0/8'].map((c) => parseCidr(c)!);
    expect(overlaps(one!, two!)).toBe(true);
    expect(overlaps(two!, one!)).toBe(true);
    expect(overlaps(one!, three!)).toBe(false);
  });

  test('what lies in another, or is there twice, goes', () => {
    const cidrs = ['192.0.2.8/29', '10.0.0.0/8', '192.0.2.0/24', '10.0.0.0/8', '192.0.3.1'];
    expect(withoutNested(cidrs)).toEqual([
      { address: '10.0.0.0', length: 8 },
      { address: '192.0.2.0', length: 24 },
      { address: '192.0.3.1', length: 32 },
    ]);
  });
});

describe('addresses of IPv6', () => {
  test.each([
    ['::', 0n],
    ['::1', 1n],
    ['1::', 1n << 112n],
    ['2001:DB8::a:0', (0x20010db8n << 96n) | 0xa0000n],
    ['1:2:3:4:5:6:7:8', 0x00010002000300040005000600070008n],
    ['::ffff:192.0.2.1', 0xffffc0000201n],
    ['64:ff9b::10.1.2.3', (0x64ff9bn << 96n) | 0x0a010203n],
    ['ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff', (1n << 128n) - 1n],
  ])('%s', (text, value) => expect(parseAddress6(text)).toBe(value));

  test.each([
    ...['', ':', ':::', '1.2.3.4', '::1::', '1:2:3:4:5:6:7', '1:2:3:4:5:6:7:8:9', '::g', '::12345'],
    ...['fe80::1%eth0', '[::1]', '::1 ', '::1/128', '::ffff:1.2.3', '::ffff:1.2.3.256'],
  ])('%j is none', (text) => expect(parseAddress6(text)).toBeUndefined());

  test.each([
    ['::/0', 0n, (1n << 128n) - 1n],
    ['fc00::/7', 0xfcn << 120n, (0xfen << 120n) - 1n],
    ['2001:db8::7', (0x20010db8n << 96n) | 7n, (0x20010db8n << 96n) | 7n],
    ['fd00::2/127', (0xfdn << 120n) | 2n, (0xfdn << 120n) | 3n],
  ])('range %s', (text, first, last) => expect(parseCidr6(text)).toMatchObject({ first, last }));

  test.each(['fd00::1/127', '::/129', '::/', '::/07', '::/8/8', 'fd00::%1/64', '10.0.0.0/8'])(
    'range %s is none',
    (text) => expect(parseCidr6(text)).toBeUndefined(),
  );

  test('each range is of one family', () => {
    expect(['10.0.0.0/8', '::/0', '::ffff:10.0.0.1', '10.0.0.1/8', 'x'].map(versionOf)).toEqual([
      ...[4, 6, 6, undefined, undefined],
    ]);
  });

  test('what lies in another, or is of the other family, goes', () => {
    const cidrs = ['fd00:2::/32', '10.0.0.0/8', 'FD00::/8', '2001:db8::1', 'fd00::/8', '::1'];
    expect(withoutNested(cidrs, 6)).toEqual([
      { address: '::1', length: 128 },
      { address: '2001:db8::1', length: 128 },
      { address: 'FD00::', length: 8 },
    ]);
    expect(withoutNested(cidrs)).toEqual([{ address: '10.0.0.0', length: 8 }]);
  });
});

describe('reserved ranges of IPv6', () => {
  const isReserved = (text: string) =>
    RESERVED_RANGES6.some((cidr) => contains(parseCidr6(cidr)!, parseCidr6(text)!));

  test.each([
    ...['::', '::1', '::10.1.2.3', '::ffff:0:0/96', '::ffff:0:0:0/96', '64:ff9b::/96'],
    ...['64:ff9b:1::/48', '100::/64', '100:0:0:1::/64', '2001::/32', '2001:2::/48', '2001:10::/28'],
    ...['2001:20::/28', '2001:db8::/32', '2002::/16', '3fff::/20', '5f00::/16', 'fc00::/7'],
    ...['fe80::/10', 'fec0::/10', 'ff00::/8', '4000::/3', '6000::/3', '8000::/1', '1fff::'],
    ...UNROUTABLE_RANGES6,
  ])('%s is', (text) => expect(isReserved(text)).toBe(true));

  test.each([
    ...['2000::1', '2001:200::1', '2001:4860:4860::8888', '2001:db7::1', '2001:db9::1', '2003::1'],
    ...['2606:4700:4700::1111', '2a00::/12', '3ffe::1', '3fff:1000::1', '2620:fe::fe'],
  ])('%s is not', (text) => expect(isReserved(text)).toBe(false));

  test('do not overlap: the kernel would refuse them', () => {
    expect(withoutNested(RESERVED_RANGES6, 6)).toHaveLength(RESERVED_RANGES6.length);
  });
});
