/**
 * What a guest sent, read byte by byte as far as anything depends on it: no compression, no
 * recursion, one pass over at most {@link MAX_QUERY_BYTES}.
 */
import { typeName } from './record-types.ts';

/** Room for the longest name, a cookie and padding (RFC 8467). */
export const MAX_QUERY_BYTES = 1024;

const HEADER_BYTES = 12;
const MAX_NAME_BYTES = 255;
const TYPE_OPT = 41;
const CLASS_IN = 1;
/** What UDP carries where a client says nothing (RFC 1035, 4.2.1). */
const PLAIN_UDP_BYTES = 512;

export const RCODE = { noError: 0, formErr: 1, servFail: 2, nxDomain: 3, notImp: 4, refused: 5 };
/** Needs EDNS to be said (RFC 6891, 6.1.3). */
export const RCODE_BADVERS = 16;

const RCODE_NAMES = new Map([
  [RCODE.noError, 'NOERROR'],
  [RCODE.formErr, 'FORMERR'],
  [RCODE.servFail, 'SERVFAIL'],
  [RCODE.nxDomain, 'NXDOMAIN'],
  [RCODE.notImp, 'NOTIMP'],
  [RCODE.refused, 'REFUSED'],
  [RCODE_BADVERS, 'BADVERS'],
]);

/** The code's name, e.g. `NXDOMAIN`. */
export function rcodeName(rcode: number): string {
  return RCODE_NAMES.get(rcode) ?? `RCODE${rcode}`;
}

/** A query that can be answered, if only with a refusal. */
export interface Query {
  readonly id: number;
  /** Flags that a reply repeats: RD and CD. */
  readonly flags: number;
  /** In lower case, without the final dot, bytes that belong into no name as `\DDD`; `''` is the root. */
  readonly name: string;
  /** Whether the name consists of letters, digits, hyphens and underscores. */
  readonly isPlain: boolean;
  readonly type: number;
  /** E.g. `A`; `TYPE123` where it has no name. */
  readonly typeName: string;
  readonly isInternet: boolean;
  /** As the guest wrote it; the reply repeats it, since some clients compare its case. */
  readonly wireQuestion: Buffer;
  readonly edns: { readonly version: number; readonly udpBytes: number } | undefined;
  /** The largest reply that may be sent over UDP, as far as the guest is concerned. */
  readonly maxUdpBytes: number;
}

/** What came in instead of a query: it gets this code, or where there is none, no answer. */
export interface NoQuery {
  readonly rcode: number | undefined;
  readonly id: number;
}

/** Reads a packet. Never throws. */
export function parseQuery(packet: Buffer): Query | NoQuery {
  if (packet.length < HEADER_BYTES) return { rcode: undefined, id: 0 };
  const id = packet.readUInt16BE(0);
  const flags = packet.readUInt16BE(2);
  // A response. Answering one could make two servers talk to each other for ever.
  if ((flags & 0x8000) !== 0) return { rcode: undefined, id };
  if (((flags >> 11) & 0xf) !== 0) return { rcode: RCODE.notImp, id };
  const noQuery = { rcode: RCODE.formErr, id };
  const counts = [4, 6, 8, 10].map((offset) => packet.readUInt16BE(offset));
  const [questions, answers, authorities, additionals = 0] = counts;
  if (packet.length > MAX_QUERY_BYTES || (flags & 0x0200) !== 0) return noQuery;
  if (questions !== 1 || answers !== 0 || authorities !== 0 || additionals > 2) return noQuery;
  const name = readName(packet, HEADER_BYTES);
  if (name === undefined || name.end + 4 > packet.length) return noQuery;
  const type = packet.readUInt16BE(name.end);
  const edns = readEdns(packet, name.end + 4, additionals);
  if (edns === 'broken') return noQuery;
  return {
    id,
    flags: flags & 0x0110,
    name: name.text.toLowerCase(),
    isPlain: name.isPlain,
    type,
    typeName: typeName(type),
    isInternet: packet.readUInt16BE(name.end + 2) === CLASS_IN,
    wireQuestion: Buffer.from(packet.subarray(HEADER_BYTES, name.end + 4)),
    edns,
    maxUdpBytes: Math.max(edns?.udpBytes ?? 0, PLAIN_UDP_BYTES),
  };
}

/** Labels up to the empty one. Pointers have no place in a question: there is nothing before it. */
function readName(
  packet: Buffer,
  start: number,
): { text: string; isPlain: boolean; end: number } | undefined {
  const labels: string[] = [];
  let isPlain = true;
  let offset = start;
  for (;;) {
    const length = packet[offset++];
    if (length === undefined || length > 63 || offset - start + length > MAX_NAME_BYTES) {
      return undefined;
    }
    if (length === 0) return { text: labels.join('.'), isPlain, end: offset };
    if (offset + length > packet.length) return undefined;
    const label = packet.toString('latin1', offset, offset + length);
    if (!/^[A-Za-z0-9_-]+$/.test(label)) isPlain = false;
    labels.push(escapeLabel(label));
    offset += length;
  }
}

/** As in zone files (RFC 1035, 5.1), so that what reaches a log is printable and has one reading. */
function escapeLabel(label: string): string {
  return label.replace(
    /[^!-~]|[.\\"]/g,
    (char) => `\\${String(char.charCodeAt(0)).padStart(3, '0')}`,
  );
}

/** The OPT record among the additional ones (RFC 6891). Its options are not for us. */
function readEdns(
  packet: Buffer,
  start: number,
  records: number,
): Query['edns'] | 'broken' | undefined {
  let offset = start;
  let edns: Query['edns'];
  for (let index = 0; index < records; index += 1) {
    const name = readName(packet, offset);
    if (name === undefined || name.end + 10 > packet.length) return 'broken';
    const end = name.end + 10 + packet.readUInt16BE(name.end + 8);
    if (end > packet.length) return 'broken';
    if (packet.readUInt16BE(name.end) === TYPE_OPT) {
      if (edns !== undefined || name.text !== '') return 'broken';
      edns = { udpBytes: packet.readUInt16BE(name.end + 2), version: packet[name.end + 5] ?? 0 };
    }
    offset = end;
  }
  return edns;
}
