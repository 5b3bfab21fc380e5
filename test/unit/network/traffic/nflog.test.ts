import { describe, expect, it } from 'vitest';
import { parseIp, parseNflog } from '../../../../src/network/traffic/nflog.ts';

const SOURCE = 'fd120000000000000000000000000003';
const TARGET = '26064700000000000000000000000010';
const PORTS = 'c35001bb'; // 50000, 443

/** A packet of IPv6 whose first next header is given, and what follows its 40 bytes. */
const v6 = (next: number, rest: string) =>
  Buffer.from(
    `60000000${'0000'}${next.toString(16).padStart(2, '0')}40${SOURCE}${TARGET}${rest}`,
    'hex',
  );
const BETWEEN = { from: 'fd12::3', to: '2606:4700::10' };
const NO_PORTS = { fromPort: undefined, toPort: undefined };
const WITH_PORTS = { fromPort: 50_000, toPort: 443 };

describe('parseIp of IPv6', () => {
  it.each([
    ['TCP', v6(6, PORTS), { protocol: 'tcp', ...WITH_PORTS }],
    ['UDP', v6(17, PORTS), { protocol: 'udp', ...WITH_PORTS }],
    ['ICMPv6', v6(58, '8000abcd'), { protocol: 'icmpv6', ...NO_PORTS }],
    ['another protocol', v6(132, PORTS), { protocol: '132', ...NO_PORTS }],
    ['none', v6(59, ''), { protocol: '59', ...NO_PORTS }],
    ['TCP cut off', v6(6, 'c350'), { protocol: 'tcp', ...NO_PORTS }],
    [
      'UDP behind options',
      v6(0, `1100${'00'.repeat(6)}${PORTS}`),
      { protocol: 'udp', ...WITH_PORTS },
    ],
    [
      'TCP behind options of 16 bytes and a route',
      v6(60, `2b01${'00'.repeat(14)}0600${'00'.repeat(6)}${PORTS}`),
      { protocol: 'tcp', ...WITH_PORTS },
    ],
    ['a first fragment', v6(44, `1100000100000001${PORTS}`), { protocol: 'udp', ...WITH_PORTS }],
    ['a later fragment', v6(44, `1100000800000001${PORTS}`), { protocol: 'udp', ...NO_PORTS }],
    ['options that are cut off', v6(0, '11ff0000'), { protocol: '0', ...NO_PORTS }],
    ['options longer than it', v6(0, `11ff${'00'.repeat(6)}`), { protocol: 'udp', ...NO_PORTS }],
  ])('%s', (_, data, expected) => {
    expect(parseIp(data)).toEqual({ ...BETWEEN, ...expected });
  });

  it('is none where its header is not whole', () => {
    expect(parseIp(v6(6, '').subarray(0, 39))).toBeUndefined();
    expect(parseIp(Buffer.alloc(0))).toBeUndefined();
    expect(parseIp(Buffer.from([0x50, ...Buffer.alloc(60)]))).toBeUndefined();
  });

  it('ends whatever a guest wrote there', () => {
    for (let length = 40; length < 400; length += 1)
      for (const next of [0, 43, 44, 60]) {
        const rest = Buffer.alloc(length - 40, next).toString('hex');
        expect(parseIp(v6(next, rest))).toMatchObject(BETWEEN);
      }
  });
});

it('parseIp of IPv4 is as before', () => {
  const head = (fragment: string, protocol: string) =>
    `45000000${'0000'}${fragment}40${protocol}0000c0000201c0000202`;
  const parsed = (text: string) => parseIp(Buffer.from(text, 'hex'));
  const both = { from: '192.0.2.1', to: '192.0.2.2' };
  expect(parsed(`${head('4000', '06')}${PORTS}`)).toEqual({
    ...both,
    protocol: 'tcp',
    ...WITH_PORTS,
  });
  expect(parsed(`${head('0001', '11')}${PORTS}`)).toEqual({
    ...both,
    protocol: 'udp',
    ...NO_PORTS,
  });
  expect(parsed(`${head('0000', '01')}0800`)).toEqual({ ...both, protocol: 'icmp', ...NO_PORTS });
});

it('parseNflog finds the packet of IPv6 among the attributes', () => {
  const attribute = (type: number, value: Buffer) => {
    const head = Buffer.alloc(4);
    head.writeUInt16LE(4 + value.length, 0);
    head.writeUInt16LE(type, 2);
    return Buffer.concat([head, value, Buffer.alloc(-value.length & 3)]);
  };
  const data = Buffer.concat([
    Buffer.from([10, 0, 0, 0]),
    attribute(10, Buffer.from('qmp-agent deny policy: \0')),
    attribute(4, Buffer.from([0, 0, 0, 7])),
    attribute(9, v6(6, PORTS)),
  ]);
  expect(parseNflog(data, 5)).toEqual({
    ...{ timeMs: 5, prefix: 'qmp-agent deny policy: ', mark: 0, inDevice: 7, outDevice: 0 },
    packet: { ...BETWEEN, protocol: 'tcp', ...WITH_PORTS },
  });
});
