import { decode, type Answer, type OptAnswer } from 'dns-packet';
import { describe, expect, it } from 'vitest';
import { sift } from '../../../../src/network/resolver/answer.ts';
import {
  decodeReply,
  encodeNoQuery,
  encodeQuery,
  encodeReply,
  type UpstreamReply,
} from '../../../../src/network/resolver/packet.ts';
import { packetOf, queryOf, replyPacket, TYPE_A_IN, wireName } from './wire.ts';

const question = { name: 'www.example.org', type: 1, typeName: 'A' };
const a = (name: string, data: string, ttl = 60): Answer => ({ type: 'A', name, ttl, data });
const cname = (name: string, data: string, ttl = 60): Answer => ({
  type: 'CNAME',
  name,
  ttl,
  data,
});

function read(packet: Buffer, of = question): UpstreamReply {
  const reply = decodeReply(packet, of, 7);
  if (typeof reply === 'string') throw new Error(reply);
  return reply;
}

/** What a guest is told, for upstream's answer. */
function told(answers: Answer[], of = question, maxTtlSeconds = 3600) {
  const packet = replyPacket({ name: of.name, type: of.typeName }, answers);
  return sift(read(packet, of), of, { maxTtlSeconds });
}

it('asks upstream for the name and the type, and nothing else of the guest', () => {
  const query = decode(encodeQuery(question, 99, true));
  expect(query).toMatchObject({
    id: 99,
    flag_rd: true,
    flag_cd: false,
    questions: [{ name: 'www.example.org', type: 'A', class: 'IN' }],
    additionals: [{ type: 'OPT', udpPayloadSize: 1232, flag_do: false, options: [] }],
  });
  expect(decode(encodeQuery(question, 99, false)).additionals).toEqual([]);
});

describe('replies from upstream', () => {
  const asked = { name: 'WWW.example.org', type: 'A' };
  it('are taken for ours by id, question and kind', () => {
    const good = replyPacket(asked, [a('www.example.org', '192.0.2.1')]);
    expect(read(good).answers).toEqual([
      { name: 'www.example.org', type: 'A', ttlSeconds: 60, data: '192.0.2.1' },
    ]);
    expect(decodeReply(good, question, 8)).toBe('foreign');
    expect(decodeReply(good, { ...question, name: 'example.org' }, 7)).toBe('foreign');
    expect(decodeReply(good, { ...question, typeName: 'TXT' }, 7)).toBe('foreign');
    const query = Buffer.from(good);
    query.writeUInt16BE(0x0100, 2);
    expect(decodeReply(query, question, 7)).toBe('foreign');
    expect(decodeReply(good.subarray(0, 11), question, 7)).toBe('foreign');
    const twoQuestions = Buffer.from(good);
    twoQuestions.writeUInt16BE(2, 4);
    expect(decodeReply(twoQuestions, question, 7)).toBe('foreign');
  });

  it('that cannot be read are broken', () => {
    const good = replyPacket(asked, [a('www.example.org', '192.0.2.1')]);
    expect(decodeReply(good.subarray(0, good.length - 8), question, 7)).toBe('broken');
    const many = Buffer.from(good);
    many.writeUInt16BE(300, 6);
    expect(decodeReply(many, question, 7)).toBe('broken');
    const loop = packetOf(
      { id: 7, flags: 0x8180, counts: [1, 1, 0, 0] },
      wireName('www', 'example', 'org'),
      TYPE_A_IN,
      Buffer.from([0xc0, 33]),
    );
    expect(decodeReply(loop, question, 7)).toBe('broken');
  });

  it('are read as far as the question where they are truncated', () => {
    const whole = replyPacket(asked, [a('www.example.org', '192.0.2.1')], { flags: 0x0380 });
    expect(read(whole.subarray(0, whole.length - 3))).toMatchObject({
      isTruncated: true,
      answers: [],
    });
  });

  it('with an error may lack the question', () => {
    expect(read(packetOf({ id: 7, flags: 0x8181, counts: [0, 0, 0, 0] }))).toMatchObject({
      rcode: 1,
    });
    const noError = packetOf({ id: 7, flags: 0x8180, counts: [0, 0, 0, 0] });
    expect(decodeReply(noError, question, 7)).toBe('foreign');
  });

  it('of many pointers to pointers are read in no time, or not at all', () => {
    const pointers = Buffer.alloc(16_000);
    for (let at = 0; at < pointers.length; at += 2) {
      pointers.writeUInt16BE(0xc000 | Math.min(0x3fff, 33 + Math.max(0, at - 2)), at);
    }
    const packet = packetOf(
      { id: 7, flags: 0x8180, counts: [1, 255, 0, 0] },
      wireName('www', 'example', 'org'),
      TYPE_A_IN,
      pointers,
    );
    const startedAt = performance.now();
    decodeReply(packet, question, 7);
    expect(performance.now() - startedAt).toBeLessThan(1_000);
  });
});

describe('what is passed on', () => {
  it('is the chain of aliases and what stands at its end, by the shortest TTL', () => {
    const answer = told([
      a('cdn.example.net', '192.0.2.2', 300),
      cname('www.example.org', 'Mid.example.net', 90),
      cname('mid.example.net', 'cdn.example.net', 30),
      a('cdn.example.net', '192.0.2.3', 300),
      a('cdn.example.net', '192.0.2.2', 300),
    ]);
    expect(answer?.addresses).toEqual(['192.0.2.2', '192.0.2.3']);
    expect(answer?.ttlSeconds).toBe(30);
    expect(answer?.answers.map(({ name, ttlSeconds }) => [name, ttlSeconds])).toEqual([
      ['www.example.org', 30],
      ['mid.example.net', 30],
      ['cdn.example.net', 30],
      ['cdn.example.net', 30],
    ]);
  });

  it('holds no addresses of other names', () => {
    const answer = told([a('www.example.org', '192.0.2.1'), a('bank.example', '192.0.2.66')]);
    expect(answer?.addresses).toEqual(['192.0.2.1']);
    expect(told([a('bank.example', '192.0.2.66')])?.addresses).toEqual([]);
  });

  it.each([
    [0, 1],
    [59, 59],
    [100_000, 3600],
    [2 ** 32 - 1, 3600],
  ])('has a TTL of %d s as %d s', (given, ttlSeconds) => {
    const answer = told([a('www.example.org', '192.0.2.1', given)]);
    expect(answer).toMatchObject({ ttlSeconds, answers: [{ ttlSeconds }] });
  });

  it('has so many addresses and no more', () => {
    const many = Array.from({ length: 100 }, (_, index) =>
      a('www.example.org', `192.0.2.${index}`),
    );
    expect(told(many)?.addresses).toHaveLength(64);
  });

  it('is nothing where aliases run in circles', () => {
    const circle = [cname('www.example.org', 'b.example'), cname('b.example', 'www.example.org')];
    expect(told(circle)).toBeUndefined();
    const long = Array.from({ length: 30 }, (_, index) =>
      cname(index === 0 ? 'www.example.org' : `n${index}.example`, `n${index + 1}.example`),
    );
    expect(told(long)).toBeUndefined();
  });

  it.each(['bad name.example', 'b\u00e4d.example', `${'x'.repeat(70)}.example`])(
    'is nothing where an alias is %s',
    (target) => {
      const records = [{ name: 'www.example.org', type: 'CNAME', ttlSeconds: 1, data: target }];
      const reply = { rcode: 0, isTruncated: false, answers: records, authorities: [] };
      expect(sift(reply, question, { maxTtlSeconds: 60 })).toBeUndefined();
    },
  );

  it('has the SOA of a negative answer, and that alone', () => {
    const soa: Answer = {
      type: 'SOA',
      name: 'example.org',
      ttl: 9_000,
      data: { mname: 'ns.example.org', rname: 'a\\.b.example.org', serial: 1, minimum: 60 },
    };
    const ns: Answer = { type: 'NS', name: 'example.org', ttl: 60, data: 'ns.example.org' };
    const packet = replyPacket({ name: question.name, type: 'A' }, [], {
      flags: 0x0183,
      authorities: [ns, soa],
    });
    const reply = read(packet);
    expect(reply.rcode).toBe(3);
    const answer = sift(reply, question, { maxTtlSeconds: 600 });
    expect(answer?.authorities).toMatchObject([{ type: 'SOA', ttlSeconds: 600 }]);
    const query = queryOf('www.example.org');
    const encoded = encodeReply(query, { rcode: 3, authorities: answer?.authorities ?? [] }, 512);
    expect(decode(encoded).authorities).toMatchObject([
      { type: 'SOA', name: 'example.org', data: { mname: 'ns.example.org', minimum: 60 } },
    ]);
  });
});

describe('replies to guests', () => {
  const answers = [
    { name: 'www.example.org', type: 'CNAME', ttlSeconds: 5, data: 'cdn.example.org' },
    { name: 'cdn.example.org', type: 'A', ttlSeconds: 5, data: '192.0.2.1' },
    { name: 'cdn.example.org', type: 'A', ttlSeconds: 5, data: '192.0.2.2' },
  ];

  it('repeat id, question and RD, and are as small as names let them be', () => {
    const query = queryOf('WwW.example.org', 'A', 1232);
    const packet = encodeReply(query, { rcode: 0, answers }, 1232);
    const question = 17 + 4;
    const alias = 2 + 10 + 4 + 2;
    expect(packet.length).toBe(12 + question + alias + 2 * (2 + 10 + 4) + 11);
    expect(decode(packet)).toMatchObject({
      id: 0x1234,
      type: 'response',
      rcode: 'NOERROR',
      flag_rd: true,
      flag_ra: true,
      flag_aa: false,
      flag_tc: false,
      questions: [{ name: 'WwW.example.org', type: 'A' }],
      answers: [
        { name: 'WwW.example.org', type: 'CNAME', ttl: 5, data: 'cdn.example.org' },
        { name: 'cdn.example.org', type: 'A', ttl: 5, data: '192.0.2.1' },
        { name: 'cdn.example.org', type: 'A', ttl: 5, data: '192.0.2.2' },
      ],
      additionals: [{ type: 'OPT', udpPayloadSize: 1232 }],
    });
  });

  it.each([
    ['MX', { exchange: 'mail.example.org', preference: 10 }],
    ['TXT', [Buffer.from('v=spf1'), Buffer.from([0, 255])]],
    ['SRV', { port: 443, target: 'a.example.org', priority: 1, weight: 2 }],
    ['PTR', 'host.example.org'],
    ['NS', 'ns.example.org'],
    ['CAA', { flags: 0, tag: 'issue', value: 'ca.example', issuerCritical: false }],
  ])('carry %s', (type, data) => {
    const record = { name: 'www.example.org', type, ttlSeconds: 9, data };
    const query = queryOf('www.example.org', type);
    const packet = encodeReply(query, { rcode: 0, answers: [record] }, 512);
    expect(decode(packet).answers).toMatchObject([{ name: 'www.example.org', type, ttl: 9, data }]);
  });

  it('that do not fit say so and have no records', () => {
    const many = Array.from({ length: 60 }, (_, index) => ({
      name: 'www.example.org',
      type: 'A',
      ttlSeconds: 5,
      data: `192.0.2.${index}`,
    }));
    const query = queryOf('www.example.org');
    const packet = encodeReply(query, { rcode: 0, answers: many }, query.maxUdpBytes);
    expect(decode(packet)).toMatchObject({ flag_tc: true, answers: [] });
    expect(decode(encodeReply(query, { rcode: 0, answers: many }, 65_535)).answers).toHaveLength(
      60,
    );
  });

  it('say why, to who speaks EDNS', () => {
    const reason = { code: 18, text: `qmp-agent: ${'x'.repeat(300)}` };
    const packet = decode(encodeReply(queryOf('a.example', 'A', 512), { rcode: 5, reason }, 512));
    const { options } = packet.additionals?.[0] as OptAnswer;
    const data = options[0]?.data as Buffer;
    expect(options[0]?.code).toBe(15);
    expect(data.readUInt16BE(0)).toBe(18);
    expect(data.toString('utf8', 2)).toMatch(/^qmp-agent: x{109}$/);
    expect(
      decode(encodeReply(queryOf('a.example'), { rcode: 5, reason }, 512)).additionals,
    ).toEqual([]);
  });

  it('say that a version of EDNS is unknown', () => {
    const packet = decode(encodeReply(queryOf('a.example', 'A', 512), { rcode: 16 }, 512));
    expect(packet).toMatchObject({ rcode: 'NOERROR', additionals: [{ extendedRcode: 1 }] });
  });

  it('to what is no query are a bare header', () => {
    expect(encodeNoQuery(0x1234, 1)).toEqual(
      Buffer.from([0x12, 0x34, 0x80, 0x81, 0, 0, 0, 0, 0, 0, 0, 0]),
    );
  });
});

it('reads mutilated replies without a hang or an exception', () => {
  const valid = replyPacket({ name: question.name, type: 'A' }, [
    cname('www.example.org', 'cdn.example.org'),
    a('cdn.example.org', '192.0.2.1'),
    { type: 'TXT', name: 'x.org', ttl: 1, data: ['abc', 'def'] },
    { type: 'CAA', name: 'x.org', ttl: 1, data: { tag: 'issue', value: 'x', flags: 0 } },
    { type: 'NSEC', name: 'x.org', ttl: 1, data: { nextDomain: 'y.org', rrtypes: ['A', 'TXT'] } },
  ]);
  let seed = 7;
  const random = (below: number) => {
    seed = (seed * 1_103_515_245 + 12_345) % 2_147_483_648;
    return Math.floor((seed / 2_147_483_648) * below);
  };
  const query = queryOf('www.example.org', 'A', 1232);
  for (let round = 0; round < 20_000; round += 1) {
    const packet = Buffer.from(valid);
    for (let hit = 1 + random(5); hit > 0; hit -= 1) {
      packet[12 + random(packet.length - 12)] = random(256);
    }
    const reply = decodeReply(packet, question, 7);
    if (typeof reply === 'string') continue;
    const answer = sift(reply, question, { maxTtlSeconds: 60 });
    if (answer === undefined) continue;
    const encoded = encodeReply(query, { rcode: 0, ...answer }, 65_535);
    decode(encoded);
  }
});
