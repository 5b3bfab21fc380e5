import { describe, expect, it } from 'vitest';
import { addressBytes, addressText, isUnicastV6 } from '../../../guest-agent/ip-address.ts';

describe('addressBytes', () => {
  it.each([
    ['192.0.2.1', 'c0000201'],
    ['::', '00000000000000000000000000000000'],
    ['::1', '00000000000000000000000000000001'],
    ['fd00::', 'fd000000000000000000000000000000'],
    ['2001:DB8::1:0:0:f', '20010db800000000000100000000000f'],
    ['1:2:3:4:5:6:7:8', '00010002000300040005000600070008'],
    ['1:2:3:4:5:6:7::', '00010002000300040005000600070000'],
    ['::ffff:192.0.2.1', '00000000000000000000ffffc0000201'],
    ['64:ff9b::192.0.2.1', '0064ff9b0000000000000000c0000201'],
  ])('reads %s', (address, hex) => {
    expect(addressBytes(address).toString('hex')).toBe(hex);
  });

  it.each(['', 'fd00', 'fe80::1%eth0', '1::2::3', '192.0.2', '::ffff:192.0.2.256'])(
    'refuses %j',
    (text) => {
      expect(() => addressBytes(text)).toThrow(TypeError);
    },
  );
});

it('addressText says them to people', () => {
  expect(addressText(addressBytes('192.0.2.1'))).toBe('192.0.2.1');
  expect(addressText(addressBytes('fd00::a:0:1'))).toBe('fd00:0:0:0:0:a:0:1');
});

it('isUnicastV6 tells addresses of one machine that a router knows', () => {
  for (const one of ['fd00::1', '2001:db8::7', '2000::']) expect(isUnicastV6(one)).toBe(true);
  for (const other of ['192.0.2.1', '::', '::1', '::192.0.2.1', '::ffff:c000:201', 'ff02::1'])
    expect(isUnicastV6(other)).toBe(false);
  for (const other of ['fe80::1', 'febf::1', 'fd00::1%1', 'example.org', ''])
    expect(isUnicastV6(other)).toBe(false);
});
