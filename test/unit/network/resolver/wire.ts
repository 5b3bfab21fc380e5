/** Packets for tests, made by hand or by dns-packet. */
import { encode, type Answer, type RecordType } from 'dns-packet';
import { parseQuery, type Query } from '../../../../src/network/resolver/query.ts';

/** A name as it goes over the wire. */
export function wireName(...labels: (string | Buffer)[]): Buffer {
  const parts = labels.flatMap((label) => {
    const bytes = Buffer.isBuffer(label) ? label : Buffer.from(label, 'latin1');
    return [Buffer.from([bytes.length]), bytes];
  });
  return Buffer.concat([...parts, Buffer.from([0])]);
}

interface Header {
  id?: number;
  flags?: number;
  counts?: [number, number, number, number];
}

/** A packet of a header and whatever follows it. */
export function packetOf(
  { id = 0x1234, flags = 0x0100, counts = [1, 0, 0, 0] }: Header,
  ...rest: Buffer[]
) {
  const head = Buffer.alloc(12);
  [id, flags, ...counts].forEach((value, index) => head.writeUInt16BE(value, index * 2));
  return Buffer.concat([head, ...rest]);
}

export const TYPE_A_IN = Buffer.from([0, 1, 0, 1]);

/** An OPT record. */
export function opt(udpBytes: number, version = 0): Buffer {
  const record = Buffer.alloc(11);
  record.writeUInt16BE(41, 1);
  record.writeUInt16BE(udpBytes, 3);
  record.writeUInt8(version, 6);
  return record;
}

/** A guest's query. */
export function queryPacket(name: string, type: string, udpBytes?: number, id = 0x1234): Buffer {
  return encode({
    type: 'query',
    id,
    flags: 0x0100,
    questions: [{ name, type: type as RecordType }],
    additionals:
      udpBytes === undefined
        ? []
        : [
            {
              type: 'OPT',
              name: '.',
              udpPayloadSize: udpBytes,
              extendedRcode: 0,
              ednsVersion: 0,
              flags: 0,
              flag_do: false,
              options: [],
            },
          ],
  });
}

/** A guest's query, read. */
export function queryOf(name: string, type = 'A', udpBytes?: number): Query {
  const query = parseQuery(queryPacket(name, type, udpBytes));
  if (!('name' in query)) throw new Error('no query');
  return query;
}

/** A reply of an upstream server. */
export function replyPacket(
  question: { name: string; type: string },
  answers: Answer[],
  { id = 7, flags = 0x8180 & 0x7fff, authorities = [] as Answer[] } = {},
): Buffer {
  return encode({
    type: 'response',
    id,
    flags,
    questions: [{ name: question.name, type: question.type as RecordType }],
    answers,
    authorities,
  });
}
