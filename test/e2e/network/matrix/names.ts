/** What a guest's questions for names get, under the default policy, which allows all of them. */
import { decode, type DecodedPacket } from 'dns-packet';
import { describe, expect, it } from 'vitest';
import * as f from '../../../integration/nft/frames.ts';
import { LAN, METADATA, OTHER, WEB } from '../world.ts';
import {
  connect,
  denied,
  GATEWAY_MAC,
  type Matrix,
  PACE_MS,
  pause,
  type Subject,
} from './subject.ts';

const A = 1;
const IN = 1;
const CHAOS = 3;
const TYPES = { NULL: 10, PTR: 12, TXT: 16, AAAA: 28, HTTPS: 65, AXFR: 252, ANY: 255 };
const FLAGS = { wanted: 0x0100, response: 0x8000, update: 5 << 11 };

/** A name as it is sent; bytes of labels are taken as they are. */
const wire = (name: string): Buffer =>
  Buffer.concat([
    ...name
      .split('.')
      .filter(Boolean)
      .map((label) => Buffer.from(`${String.fromCharCode(label.length)}${label}`, 'latin1')),
    Buffer.from([0]),
  ]);
const u16 = (...values: number[]): Buffer =>
  Buffer.from(values.flatMap((value) => [value >> 8, value & 255]));
/** An OPT record (RFC 6891) with an EDNS version. */
const opt = (version: number): Buffer =>
  Buffer.concat([Buffer.from([0]), u16(41, 1232), Buffer.from([0, version]), u16(0, 0)]);

interface Question {
  readonly type?: number;
  /** Its class. */
  readonly kind?: number;
  readonly flags?: number;
  readonly questions?: number;
  readonly edns?: number;
}

/** A query as hex. */
export function query(name: string, o: Question = {}): string {
  const { type = A, kind = IN, flags = FLAGS.wanted, questions = 1, edns } = o;
  const extra = edns === undefined ? [] : [opt(edns)];
  const head = u16(0x1234, flags, questions, 0, 0, extra.length);
  return Buffer.concat([head, wire(name), u16(type, kind), ...extra]).toString('hex');
}

/** Of an address, a name, or text. */
function textOf(data: unknown): string {
  if (typeof data === 'string') return data;
  return Array.isArray(data) ? Buffer.concat(data as Buffer[]).toString() : '?';
}

/** Asks; an rcode and data, or the name of an error. */
export async function ask(vm: Subject, hex: string, o: object = {}): Promise<string> {
  const reply = (await vm.peer.do('ask', { to: vm.gateway, hex, ...o })) as string;
  if (!/^([0-9a-f]{2})+$/.test(reply)) return reply;
  const { rcode, answers = [] } = decode(Buffer.from(reply, 'hex')) as DecodedPacket & {
    rcode: string;
  };
  return [rcode, ...answers.map((answer) => ('data' in answer ? textOf(answer.data) : ''))].join(
    ' ',
  );
}

type Row = [name: string, hex: string, answer: string, record: Record<string, unknown> | undefined];

const answered = (addresses?: string[]) => ({
  verdict: 'answered',
  ...(addresses === undefined ? {} : { addresses }),
});
const refused = (rule: string) => ({ verdict: 'refused', rule });
const limited = (rule: string) => ({ verdict: 'limited', rule: `limit ${rule}` });
const REFUSED = 'REFUSED';
const LONG = 'l'.repeat(50);

const ROWS: Row[] = [
  ['an address', query('web.test'), `NOERROR ${WEB}`, answered([WEB])],
  ['in whatever case', query('WeB.TeSt'), `NOERROR ${WEB}`, answered([WEB])],
  ['a name that is not there', query('nothing.test'), 'NXDOMAIN', answered()],
  ['IPv6', query('web.test', { type: TYPES.AAAA }), 'NOERROR', answered()],
  ['hints past the rules', query('web.test', { type: TYPES.HTTPS }), 'NOERROR', answered()],
  ['text', query('text.test', { type: TYPES.TXT }), 'NOERROR hello', answered()],
  ['NULL', query('web.test', { type: TYPES.NULL }), REFUSED, refused('record-type')],
  ['ANY', query('web.test', { type: TYPES.ANY }), REFUSED, refused('record-type')],
  ['a whole zone', query('test', { type: TYPES.AXFR }), REFUSED, refused('record-type')],
  ['a type of nobody', query('web.test', { type: 65_280 }), REFUSED, refused('record-type')],
  ['another class', query('version.bind', { type: 16, kind: CHAOS }), REFUSED, refused('class')],
  ['odd letters', query('a b\x01.test'), REFUSED, refused('name-syntax')],
  ['localhost', query('x.localhost'), REFUSED, refused('special-name')],
  [
    'whose a private address is',
    query('3.2.1.10.in-addr.arpa', { type: TYPES.PTR }),
    REFUSED,
    refused('reverse 10.0.0.0/8'),
  ],
  ['a name too long', query(`${LONG}.${LONG}.${LONG}.test`), REFUSED, limited('nameBytes')],
  ['a label too long', query(`${'t'.repeat(63)}.test`), REFUSED, limited('labelBytes')],
  ['too many labels', query(`${'a.'.repeat(12)}test`), REFUSED, limited('labels')],
  ['EDNS of another version', query('web.test', { edns: 7 }), 'NOERROR', refused('edns-version')],
  ['two questions in one', query('web.test', { questions: 2 }), 'FORMERR', undefined],
  ['an update', query('web.test', { flags: FLAGS.update }), 'NOTIMP', undefined],
  ['what is an answer', query('web.test', { flags: FLAGS.response }), 'timeout', undefined],
  ['a name that points back', `${query('').slice(0, 24)}c00c00010001`, 'FORMERR', undefined],
];

/** What a name is made to lead to, and what the resolver then says that it opened the door to. */
const REBOUND: [to: string | string[], range: string][] = [
  [LAN, '10.0.0.0/8'],
  [METADATA, '169.254.0.0/16'],
  ['127.0.0.1', '127.0.0.0/8'],
  ['100.64.0.1', '100.64.0.0/10'],
  ['0.0.0.0', '0.0.0.0/8'],
  [[WEB, '192.168.1.10'], '192.168.0.0/16'],
];

export function nameCases(of: () => Matrix): void {
  const check = (act: (vm: Subject) => Promise<unknown>, answer: string, record?: object) =>
    of().check(of().one, () => act(of().one), {
      ...{ answer, passes: false },
      ...(record === undefined ? {} : { record: { kind: 'dns', ...record } }),
    });

  describe('names', () => {
    it.each(ROWS)('%s', async (_name, hex, answer, record) => {
      await check(
        (vm) => ask(vm, hex, { timeoutS: answer === 'timeout' ? 0.5 : 5 }),
        answer,
        record,
      );
    });

    it('by TCP', async () => {
      const hex = query('web.test');
      await check((vm) => ask(vm, hex, { tcp: true }), `NOERROR ${WEB}`, answered([WEB]));
    });

    it('with the reason of a refusal, for those who speak EDNS', async () => {
      const { one } = of();
      const hex = query('web.test', { type: TYPES.ANY, edns: 0 });
      const reply = (await one.peer.do('ask', { to: one.gateway, hex })) as string;
      expect(Buffer.from(reply, 'hex').toString('latin1')).toContain('records of type ANY');
    });

    it('from port 0, which cannot be answered, does the resolver no harm', async () => {
      const { one } = of();
      one.records.clear();
      const ends = { source: one.address, destination: one.gateway };
      const text = Buffer.from(query('web.test'), 'hex').toString('latin1');
      const packet = f.ipv4({ protocol: 17, ...ends }, f.udp(ends, 0, 53, text));
      const frame = f.ethernet({ from: one.mac, to: GATEWAY_MAC }, 0x0800, packet);
      await one.peer.do('frame', { dev: 'eth0', frames: [frame] });
      await one.records.expect({ kind: 'dns', name: 'web.test' }); // it was asked
      await check((vm) => ask(vm, query('web.test')), `NOERROR ${WEB}`, answered([WEB]));
    });

    it('too many under one parent: a tunnel gets no further', async () => {
      const { one } = of();
      for (let index = 0; index < 100; index++) await ask(one, query(`n${index}.token.test`));
      await check(
        (vm) => ask(vm, query('more.token.test')),
        REFUSED,
        limited('namesPerParentPerMinute'),
      );
      await check((vm) => ask(vm, query('web.test')), `NOERROR ${WEB}`, answered([WEB]));
    });
  });

  describe('a name that is rebound', () => {
    /** Asks until the name server has taken notice. */
    async function asked(name: string, verdict: string): Promise<void> {
      const { one } = of();
      const seen = () =>
        one.records.all.some((r) => r.kind === 'dns' && r.name === name && r.verdict === verdict);
      await expect
        .poll(
          async () => {
            await ask(one, query(name));
            await pause(PACE_MS);
            return seen();
          },
          { timeout: 10_000 },
        )
        .toBe(true);
    }

    it.each(REBOUND)('to %s is refused as a whole', async (to, range) => {
      const { one, world } = of();
      one.records.clear();
      await world.rename({ 'moving.test': to });
      await asked('moving.test', 'rebinding');
      const record = { verdict: 'rebinding', rule: `never ${range}` };
      await check((vm) => ask(vm, query('moving.test')), REFUSED, record);
    });

    it('opens nothing, by its alias neither', async () => {
      const { one, world } = of();
      one.records.clear();
      await world.rename({ 'moving.test': LAN });
      await asked('alias.test', 'rebinding');
      const act = () => connect(one, LAN, 443);
      await of().check(one, act, denied('reserved', LAN, 443, 'ECONNREFUSED'));
    });

    it('is answered when it leads outside again, by its alias too', async () => {
      const { one, world } = of();
      one.records.clear();
      await world.rename({ 'moving.test': OTHER });
      await asked('alias.test', 'answered');
      await one.records.expect({ name: 'alias.test', verdict: 'answered', addresses: [OTHER] });
    });
  });
}
