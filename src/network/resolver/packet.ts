/** DNS messages to and from bytes; the one place that knows dns-packet. */
import {
  decode,
  encode,
  type Answer,
  type DecodedPacket,
  type OptAnswer,
  type RecordType,
} from 'dns-packet';
import { MAX_RECORDS, type DnsRecord } from './record.ts';
import type { Query } from './query.ts';

/** What fits one packet on any path, so that nothing is fragmented (DNS Flag Day 2020). */
export const UDP_BYTES = 1232;
/** The largest reply of an upstream server that is looked at. */
export const MAX_REPLY_BYTES = 16_384;

/** What is asked of an upstream server. */
export interface Question {
  /** In lower case, without the final dot. */
  readonly name: string;
  readonly type: number;
  /** E.g. `A`. */
  readonly typeName: string;
}

/** What an upstream server said. */
export interface UpstreamReply {
  readonly rcode: number;
  readonly isTruncated: boolean;
  readonly answers: readonly DnsRecord[];
  readonly authorities: readonly DnsRecord[];
}

/**
 * A query of our own: nothing of the guest's packet goes up but the name and the type, neither the case
 * of its letters nor options, both of which could carry something out.
 */
export function encodeQuery(question: Question, id: number, withEdns: boolean): Buffer {
  const opt: OptAnswer = {
    type: 'OPT',
    name: '.',
    udpPayloadSize: UDP_BYTES,
    extendedRcode: 0,
    ednsVersion: 0,
    flags: 0,
    flag_do: false,
    options: [],
  };
  return encode({
    type: 'query',
    id,
    flags: 0x0100,
    questions: [{ type: question.typeName as RecordType, name: question.name || '.' }],
    additionals: withEdns ? [opt] : [],
  });
}

/**
 * Reads a reply to that query.
 *
 * @returns `foreign` where it answers something else, `broken` where it cannot be read
 */
export function decodeReply(
  packet: Buffer,
  question: Question,
  id: number,
): UpstreamReply | 'foreign' | 'broken' {
  if (packet.length < 12 || packet.readUInt16BE(0) !== id) return 'foreign';
  const flags = packet.readUInt16BE(2);
  if ((flags & 0xf800) !== 0x8000) return 'foreign';
  const rcode = flags & 0xf;
  const isTruncated = (flags & 0x0200) !== 0;
  const records = packet.readUInt16BE(6) + packet.readUInt16BE(8);
  // FORMERR may come without the question, by whom could not read it.
  if (packet.readUInt16BE(4) === 0 && rcode !== 0) {
    return { rcode, isTruncated, answers: [], authorities: [] };
  }
  if (packet.readUInt16BE(4) !== 1) return 'foreign';
  if (packet.length > MAX_REPLY_BYTES || records > MAX_RECORDS) return 'broken';
  // The additional records are of no use here: addresses in them belong to other names.
  const copy = Buffer.from(packet);
  copy.writeUInt16BE(0, 10);
  try {
    const message = isTruncated ? decodeQuestion(copy) : decode(copy);
    const asked = message.questions?.[0];
    if (asked === undefined || lower(asked.name) !== question.name) return 'foreign';
    if (asked.type !== question.typeName || asked.class !== 'IN') return 'foreign';
    return {
      rcode,
      isTruncated,
      answers: (message.answers ?? []).flatMap(toRecord),
      authorities: (message.authorities ?? []).flatMap(toRecord),
    };
  } catch {
    return 'broken';
  }
}

/** A truncated reply may end in the midst of a record; what it answers is all that is wanted of it. */
function decodeQuestion(packet: Buffer): DecodedPacket {
  packet.writeUInt32BE(0, 6);
  return decode(packet);
}

function lower(name: string): string {
  return name === '.' ? '' : name.toLowerCase();
}

function toRecord(answer: Answer): DnsRecord[] {
  if (answer.type === 'OPT' || answer.class !== 'IN') return [];
  return [
    {
      name: lower(answer.name),
      type: answer.type,
      ttlSeconds: answer.ttl ?? 0,
      data: answer.data,
    },
  ];
}

/** What a reply to a guest says. */
export interface Reply {
  readonly rcode: number;
  readonly answers?: readonly DnsRecord[];
  readonly authorities?: readonly DnsRecord[];
  /** Why it is not what was hoped for (Extended DNS Errors, RFC 8914); sent to who speaks EDNS. */
  readonly reason?: { readonly code: number; readonly text: string } | undefined;
}

const EDE_OPTION = 15;
const MAX_REASON_BYTES = 120;

/**
 * A reply to a guest's query. Where it is larger than `maxBytes`, it has no records and says that it was
 * truncated, so that the guest asks again over TCP.
 */
export function encodeReply(query: Query, reply: Reply, maxBytes: number): Buffer {
  const answers = reply.answers ?? [];
  const authorities = reply.authorities ?? [];
  const opt = encodeOpt(query, reply);
  const head = Buffer.alloc(12);
  head.writeUInt16BE(query.id, 0);
  head.writeUInt16BE(0x8080 | query.flags | (reply.rcode & 0xf), 2);
  head.writeUInt16BE(1, 4);
  head.writeUInt16BE(answers.length, 6);
  head.writeUInt16BE(authorities.length, 8);
  head.writeUInt16BE(opt.length > 0 ? 1 : 0, 10);
  const start = head.length + query.wireQuestion.length;
  const names = new NameTable();
  if (query.isPlain) names.note(query.name, head.length);
  const records = encodeRecords([...answers, ...authorities], start, names);
  const packet = Buffer.concat([head, query.wireQuestion, records, opt]);
  if (packet.length <= maxBytes) return packet;
  head.writeUInt16BE(head.readUInt16BE(2) | 0x0200, 2);
  head.writeUInt32BE(0, 6);
  return Buffer.concat([head, query.wireQuestion, opt]);
}

/** A bare header: to what could not be read as a query. */
export function encodeNoQuery(id: number, rcode: number): Buffer {
  const head = Buffer.alloc(12);
  head.writeUInt16BE(id, 0);
  head.writeUInt16BE(0x8080 | rcode, 2);
  return head;
}

function encodeOpt(query: Query, reply: Reply): Buffer {
  if (query.edns === undefined) return Buffer.alloc(0);
  let option = Buffer.alloc(0);
  if (reply.reason !== undefined) {
    const text = Buffer.from(reply.reason.text).subarray(0, MAX_REASON_BYTES);
    option = Buffer.concat([Buffer.alloc(6), text]);
    option.writeUInt16BE(EDE_OPTION, 0);
    option.writeUInt16BE(2 + text.length, 2);
    option.writeUInt16BE(reply.reason.code, 4);
  }
  const opt = Buffer.alloc(11);
  opt.writeUInt16BE(41, 1);
  opt.writeUInt16BE(UDP_BYTES, 3);
  opt.writeUInt8(reply.rcode >> 4, 5);
  opt.writeUInt16BE(option.length, 9);
  return Buffer.concat([opt, option]);
}

/** Types whose data is one name, which may be compressed (RFC 3597, 4). */
const NAME_TYPES = new Set(['CNAME', 'NS', 'PTR']);

function encodeRecords(
  records: readonly DnsRecord[],
  start: number,
  names: NameTable,
): Buffer<ArrayBuffer> {
  const parts: Buffer[] = [];
  let offset = start;
  for (const record of records) {
    const owner = names.encode(record.name, offset);
    // With the root as its owner the record is one zero byte, then type, class, TTL and the data.
    const wire = encode({
      answers: [{ ...record, name: '.', ttl: record.ttlSeconds } as unknown as Answer],
    }).subarray(13);
    const fixed = Buffer.from(wire.subarray(0, 10));
    let data = wire.subarray(10);
    if (NAME_TYPES.has(record.type)) {
      data = names.encode(record.data as string, offset + owner.length + fixed.length);
      fixed.writeUInt16BE(data.length, 8);
    }
    parts.push(owner, fixed, data);
    offset += owner.length + fixed.length + data.length;
  }
  return Buffer.concat(parts);
}

/** Where in a message each name, and each end of one, stands already (RFC 1035, 4.1.4). */
class NameTable {
  readonly #offsets = new Map<string, number>();

  /** Notes an uncompressed name. */
  note(name: string, offset: number): void {
    let at = offset;
    for (let rest = lower(name); rest !== ''; rest = tail(rest)) {
      if (at < 0x4000 && !this.#offsets.has(rest)) this.#offsets.set(rest, at);
      at += head(rest).length + 1;
    }
  }

  /** Encodes a name that will stand at `offset`. */
  encode(name: string, offset: number): Buffer<ArrayBuffer> {
    const bytes: number[] = [];
    let rest = lower(name);
    for (; rest !== '' && !this.#offsets.has(rest); rest = tail(rest)) {
      const at = offset + bytes.length;
      if (at < 0x4000) this.#offsets.set(rest, at);
      const label = Buffer.from(head(rest), 'latin1');
      bytes.push(label.length, ...label);
    }
    const known = this.#offsets.get(rest);
    if (known === undefined) bytes.push(0);
    else bytes.push(0xc0 | (known >> 8), known & 0xff);
    return Buffer.from(bytes);
  }
}

function head(name: string): string {
  return name.split('.', 1)[0] ?? '';
}

function tail(name: string): string {
  const dot = name.indexOf('.');
  return dot < 0 ? '' : name.slice(dot + 1);
}
