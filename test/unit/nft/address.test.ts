import { describe, expect, test } from 'vitest';
import { overlaps, parseAddress, parseCidr, withoutNested } from '../../../nft/address.ts';

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
