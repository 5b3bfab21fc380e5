import { describe, expect, it } from 'vitest';
import { parseQuery, type NoQuery } from '../../../../src/network/resolver/query.ts';
import { opt, packetOf, queryOf, TYPE_A_IN, wireName } from './wire.ts';

const name = wireName('Example', 'org');

describe('queries', () => {
  it('are read, with the case of the question kept for the reply', () => {
    expect(queryOf('Example.ORG', 'A')).toEqual({
      id: 0x1234,
      flags: 0x0100,
      name: 'example.org',
      isPlain: true,
      type: 1,
      typeName: 'A',
      isInternet: true,
      wireQuestion: Buffer.concat([wireName('Example', 'ORG'), TYPE_A_IN]),
      edns: undefined,
      maxUdpBytes: 512,
    });
  });

  it('say how much UDP may carry, at least 512 bytes', () => {
    expect(queryOf('a.example', 'A', 1400)).toMatchObject({ maxUdpBytes: 1400 });
    expect(queryOf('a.example', 'A', 20)).toMatchObject({ maxUdpBytes: 512 });
    const version1 = packetOf({ counts: [1, 0, 0, 1] }, name, TYPE_A_IN, opt(4096, 1));
    expect(parseQuery(version1)).toMatchObject({ edns: { version: 1, udpBytes: 4096 } });
  });

  it('may ask for the root, and for types that nobody has heard of', () => {
    expect(queryOf('.', 'NS')).toMatchObject({ name: '', isPlain: true, typeName: 'NS' });
    expect(parseQuery(packetOf({}, name, Buffer.from([0xff, 0, 0, 3])))).toMatchObject({
      typeName: 'TYPE65280',
      isInternet: false,
    });
  });

  it.each([
    ['a dot within a label', wireName('a.b', 'org'), 'a\\046b.org'],
    ['a NUL', wireName('a\0', 'org'), 'a\\000.org'],
    ['bytes over 127', wireName(Buffer.from([0xff, 0xc3]), 'org'), '\\255\\195.org'],
    ['a line break', wireName('a\nb'), 'a\\010b'],
    ['a backslash', wireName('a\\b'), 'a\\092b'],
    ['a star', wireName('*', 'org'), '*.org'],
  ])('with %s are no host names, and show so', (_, wire, text) => {
    expect(parseQuery(packetOf({}, wire, TYPE_A_IN))).toMatchObject({ name: text, isPlain: false });
  });

  it('of the longest name are read', () => {
    const labels = ['a'.repeat(63), 'b'.repeat(63), 'c'.repeat(63), 'd'.repeat(61)];
    const longest = parseQuery(packetOf({}, wireName(...labels), TYPE_A_IN));
    expect(longest).toMatchObject({ name: labels.join('.') });
    labels[3] += 'd';
    expect(parseQuery(packetOf({}, wireName(...labels), TYPE_A_IN))).toEqual({
      rcode: 1,
      id: 0x1234,
    });
  });
});

describe('what is no query', () => {
  const silent: NoQuery['rcode'] = undefined;
  const [formErr, notImp] = [1, 4];
  const loop = Buffer.from([0xc0, 12]);
  it.each([
    ['nothing', Buffer.alloc(0), silent],
    ['half a header', Buffer.alloc(11), silent],
    ['a response', packetOf({ flags: 0x8180 }, name, TYPE_A_IN), silent],
    ['a response with another opcode', packetOf({ flags: 0xa800 }, name, TYPE_A_IN), silent],
    ['an inverse query', packetOf({ flags: 0x0800 }, name, TYPE_A_IN), notImp],
    ['a notification', packetOf({ flags: 0x2000 }, name, TYPE_A_IN), notImp],
    ['an update', packetOf({ flags: 0x2800 }, name, TYPE_A_IN), notImp],
    ['a truncated one', packetOf({ flags: 0x0300 }, name, TYPE_A_IN), formErr],
    ['no question', packetOf({ counts: [0, 0, 0, 0] }), formErr],
    ['two questions', packetOf({ counts: [2, 0, 0, 0] }, name, TYPE_A_IN), formErr],
    ['65,535 questions', packetOf({ counts: [65_535, 0, 0, 0] }, name, TYPE_A_IN), formErr],
    ['an answer', packetOf({ counts: [1, 1, 0, 0] }, name, TYPE_A_IN), formErr],
    ['an authority', packetOf({ counts: [1, 0, 1, 0] }, name, TYPE_A_IN), formErr],
    ['many additional records', packetOf({ counts: [1, 0, 0, 9] }, name, TYPE_A_IN), formErr],
    ['no additional record', packetOf({ counts: [1, 0, 0, 1] }, name, TYPE_A_IN), formErr],
    ['two OPT', packetOf({ counts: [1, 0, 0, 2] }, name, TYPE_A_IN, opt(1), opt(1)), formErr],
    ['no name', packetOf({}), formErr],
    ['a name without end', packetOf({}, Buffer.from([3, 0x61])), formErr],
    ['a name without type', packetOf({}, name), formErr],
    ['a pointer to itself', packetOf({}, loop, TYPE_A_IN), formErr],
    [
      'a pointer behind a label',
      packetOf({}, Buffer.from([1, 0x61, 0xc0, 12]), TYPE_A_IN),
      formErr,
    ],
    ['a label of another kind', packetOf({}, Buffer.from([0x41, 0x61, 0]), TYPE_A_IN), formErr],
    ['too many bytes', packetOf({}, name, TYPE_A_IN, Buffer.alloc(1024)), formErr],
  ])('%s', (_, packet, rcode) => {
    const { rcode: given } = parseQuery(packet) as NoQuery;
    expect(given).toBe(rcode);
  });

  it('never throws, whatever comes', () => {
    const valid = packetOf({ counts: [1, 0, 0, 1] }, name, TYPE_A_IN, opt(1232));
    let seed = 42;
    const random = (below: number) => {
      seed = (seed * 1_103_515_245 + 12_345) % 2_147_483_648;
      return Math.floor((seed / 2_147_483_648) * below);
    };
    for (let round = 0; round < 20_000; round += 1) {
      const packet = Buffer.from(valid.subarray(0, random(valid.length) + 1));
      for (let hit = random(6); hit > 0; hit -= 1) packet[random(packet.length)] = random(256);
      parseQuery(packet);
    }
  });
});
