/**
 * What a hostile agent does, by name. Runs in a guest in the agent's place, or on the host behind a
 * unix socket; never in the test's own process.
 *
 * An attack on the `connect` phase comes while the host opens its session. One on the `call` phase
 * comes after an honest answer to the ping with which every session begins.
 */
import { PROTOCOL_VERSION } from '../../../../guest-agent/protocol.ts';
import { randomBytes } from 'node:crypto';
import type { Duplex } from 'node:stream';
import { FRAME, frameHead, jsonFrame } from '../../../../guest-agent/frames.ts';
import { guestPreamble, HTTP2_PREFACE } from '../../../../guest-agent/preamble.ts';
import {
  ClientReader,
  FLAG,
  frame,
  STATUS_100,
  STATUS_200,
  TYPE,
  u32,
  type ClientFrame,
} from './http2-frames.ts';

/** What an attack works with. */
export interface Victim {
  readonly wire: Duplex;
  /** Aborted when the next attack was chosen. */
  readonly over: AbortSignal;
  /** Sends pieces for ever, as fast as the host takes them. */
  flood(piece: Buffer): Promise<void>;
  /** Sends pieces for ever, one each `ms`. */
  drip(piece: Buffer, ms: number): void;
}

/** Before HTTP/2: what is sent instead of the answer to the host's preamble. */
type PreambleAttack = (victim: Victim, nonce: string) => void;

/** In HTTP/2: what is sent to the stream under attack, the first after the ping or the ping itself. */
type StreamAttack = (victim: Victim, streamId: number) => void;

const VERSION = '6.6.6';
const CHUNK_BYTES = 64 * 1024;
const junk = randomBytes(CHUNK_BYTES).map((byte) => (byte === 0x0a ? 0x0b : byte));

export const PREAMBLE_ATTACKS: Readonly<Record<string, PreambleAttack>> = {
  'silent preamble': () => undefined,
  'garbage preamble': ({ wire }) => void wire.write(Buffer.concat([junk, Buffer.from('\n')])),
  'endless preamble': (victim) => void victim.flood(Buffer.from(junk)),
  'endless lines': (victim) =>
    void victim.flood(Buffer.from(`QMPAGENT ${PROTOCOL_VERSION} \n`.repeat(4096))),
  'slow preamble': (victim) => victim.drip(Buffer.from('Q'), 20),
  'answer to another question': ({ wire }) =>
    void wire.write(guestPreamble('0'.repeat(32), VERSION)),
  'wrong version': ({ wire }, nonce) => void wire.write(`QMPAGENT 999 ${nonce} ${VERSION}\n`),
  'absurd version': ({ wire }, nonce) =>
    void wire.write(`QMPAGENT ${'9'.repeat(90)} ${nonce} ${VERSION}\n`),
  'malformed HTTP/2': ({ wire }, nonce) => {
    wire.write(guestPreamble(nonce, VERSION));
    wire.write(junk);
  },
  'HTTP/1': ({ wire }, nonce) => {
    wire.write(guestPreamble(nonce, VERSION));
    wire.write('HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}');
  },
  'silent HTTP/2': ({ wire }, nonce) => void wire.write(guestPreamble(nonce, VERSION)),
};

const reply = (streamId: number, flags: number = FLAG.endHeaders) =>
  frame(TYPE.headers, flags, streamId, STATUS_200);
const data = (streamId: number, payload: Buffer, flags = 0) =>
  frame(TYPE.data, flags, streamId, payload);
const json = (streamId: number, text: string) =>
  Buffer.concat([reply(streamId), data(streamId, Buffer.from(text), FLAG.endStream)]);
/** A header with a name of one letter and a value of that length, as HPACK literals. */
const header = (valueBytes: number) => {
  const length = [0x7f]; // 127 and more, in the 7-bit prefix form of RFC 7541, 5.1
  for (let rest = valueBytes - 127; ; rest >>= 7) {
    length.push(rest > 127 ? (rest & 0x7f) | 0x80 : rest);
    if (rest <= 127) break;
  }
  return Buffer.concat([Buffer.from([0x00, 1, 0x78, ...length]), Buffer.alloc(valueBytes, 'y')]);
};
const many = (piece: Buffer) =>
  Buffer.concat(Array<Buffer>(Math.ceil(16_384 / piece.length)).fill(piece));

/** Attacks that any request may meet. */
export const REPLY_ATTACKS: Readonly<Record<string, StreamAttack>> = {
  'silent reply': () => undefined,
  'malformed JSON': ({ wire }, id) => void wire.write(json(id, '{"agentVersion": ')),
  'wrong JSON': ({ wire }, id) => void wire.write(json(id, '[1, {"agentVersion": null}]')),
  'deep JSON': ({ wire }, id) => void wire.write(json(id, '['.repeat(16_000))),
  'empty reply': ({ wire }, id) => void wire.write(reply(id, FLAG.endHeaders | FLAG.endStream)),
  'endless JSON': (victim, id) => {
    victim.wire.write(reply(id));
    void victim.flood(data(id, Buffer.alloc(16_384, '[')));
  },
  'endless JSON, byte by byte': (victim, id) => {
    victim.wire.write(reply(id));
    void victim.flood(many(data(id, Buffer.from('['))));
  },
  'slow reply': (victim, id) => {
    victim.wire.write(reply(id));
    victim.drip(data(id, Buffer.from(' ')), 20);
  },
  'oversized headers': ({ wire }, id) => {
    const block = Buffer.concat([STATUS_200, ...Array<Buffer>(5).fill(header(16_000))]);
    wire.write(frame(TYPE.headers, 0, id, block.subarray(0, 16_384)));
    for (let at = 16_384; at < block.length; at += 16_384) {
      const flags = at + 16_384 >= block.length ? FLAG.endHeaders : 0;
      wire.write(frame(TYPE.continuation, flags, id, block.subarray(at, at + 16_384)));
    }
  },
  'endless headers': (victim, id) => {
    victim.wire.write(frame(TYPE.headers, 0, id, STATUS_200));
    void victim.flood(frame(TYPE.continuation, 0, id, header(16_000)));
  },
  'endless empty continuations': (victim, id) => {
    victim.wire.write(frame(TYPE.headers, 0, id, STATUS_200));
    void victim.flood(many(frame(TYPE.continuation, 0, id)));
  },
  'endless interim replies': (victim, id) =>
    void victim.flood(many(frame(TYPE.headers, FLAG.endHeaders, id, STATUS_100))),
  'malformed HPACK': ({ wire }, id) =>
    void wire.write(frame(TYPE.headers, FLAG.endHeaders, id, Buffer.alloc(64, 0xff))),
  'absurd frame length': ({ wire }, id) =>
    void wire.write(frame(TYPE.data, 0, id, Buffer.alloc(1024), 0xffffff)),
  'endless empty frames': (victim, id) => {
    victim.wire.write(reply(id));
    void victim.flood(many(data(id, Buffer.alloc(0))));
  },
  'endless unknown frames': (victim) => void victim.flood(many(frame(0xbe, 0, 0, u32(1)))),
  'endless pings': (victim) => void victim.flood(many(frame(TYPE.ping, 0, 0, Buffer.alloc(8)))),
  'endless ping replies': (victim) =>
    void victim.flood(many(frame(TYPE.ping, FLAG.ack, 0, Buffer.alloc(8)))),
  'endless settings': (victim) => void victim.flood(many(frame(TYPE.settings, 0, 0))),
  'endless resets': (victim, id) => {
    victim.wire.write(frame(TYPE.rstStream, 0, id, u32(8)));
    void victim.flood(many(frame(TYPE.rstStream, 0, id, u32(8))));
  },
  'reset of a stream that never was': ({ wire }) =>
    void wire.write(frame(TYPE.rstStream, 0, 12_345, u32(8))),
  'pushed streams': (victim, id) => {
    const promise = (pushed: number) =>
      frame(TYPE.pushPromise, FLAG.endHeaders, id, Buffer.concat([u32(pushed), STATUS_200]));
    victim.wire.write(Buffer.concat([2, 4, 6, 8].map(promise)));
  },
  'window beyond its bound': ({ wire }, id) => {
    wire.write(frame(TYPE.windowUpdate, 0, id, u32(0x7fffffff)));
    wire.write(frame(TYPE.windowUpdate, 0, 0, u32(0x7fffffff)));
  },
  'data beyond the window': (victim, id) => {
    victim.wire.write(reply(id));
    void victim.flood(data(id, Buffer.alloc(16_384)));
  },
  goodbye: ({ wire }) => void wire.write(frame(TYPE.goaway, 0, 0, Buffer.concat([u32(0), u32(0)]))),
};

const started = jsonFrame(FRAME.started, { id: 'evil-1', pid: 1 });
const exit = jsonFrame(FRAME.exit, { exitCode: 0, durationMs: 1, timedOut: false });
const output = (bytes: number) => {
  return Buffer.concat([frameHead(FRAME.stdout, bytes), Buffer.alloc(bytes, 'o')]);
};
/** An exec's reply: status, first frame, and what follows. */
const begin = (id: number, ...frames: Buffer[]) =>
  Buffer.concat([reply(id), data(id, Buffer.concat([started, ...frames]))]);

/** Attacks by the output of an exec. */
export const EXEC_ATTACKS: Readonly<Record<string, StreamAttack>> = {
  'no first frame': ({ wire }, id) => void wire.write(reply(id)),
  'output before the first frame': ({ wire }, id) =>
    void wire.write(Buffer.concat([reply(id), data(id, output(10))])),
  'first frame twice': ({ wire }, id) => void wire.write(begin(id, started)),
  'unknown frame type': ({ wire }, id) => void wire.write(begin(id, frameHead(99, 0))),
  'frame of 4 GiB': ({ wire }, id) =>
    void wire.write(begin(id, frameHead(FRAME.stdout, 0xffffffff))),
  'control frame of 1 MiB': ({ wire }, id) =>
    void wire.write(begin(id, frameHead(FRAME.exit, 1024 * 1024))),
  'exit that is not JSON': ({ wire }, id) =>
    void wire.write(begin(id, frameHead(FRAME.exit, 4), Buffer.from('oops'))),
  'exit code 4711': ({ wire }, id) =>
    void wire.write(
      begin(id, jsonFrame(FRAME.exit, { exitCode: 4711, durationMs: 0, timedOut: false })),
    ),
  'endless empty output': (victim, id) => {
    victim.wire.write(begin(id));
    void victim.flood(data(id, Buffer.concat(Array<Buffer>(2000).fill(output(0)))));
  },
  'endless marks of truncation': (victim, id) => {
    victim.wire.write(begin(id));
    const marks = Buffer.alloc(13 * 1000, Buffer.concat([frameHead(4, 8), Buffer.alloc(8, 1)]));
    void victim.flood(data(id, marks));
  },
  'output flood': (victim, id) => {
    victim.wire.write(begin(id));
    void victim.flood(data(id, output(16_000)));
  },
  'output flood, byte by byte': (victim, id) => {
    victim.wire.write(begin(id));
    void victim.flood(many(data(id, output(1))));
  },
  'stream that ends early': ({ wire }, id) =>
    void wire.write(Buffer.concat([reply(id), data(id, started, FLAG.endStream)])),
  'exec that never ends': ({ wire }, id) => void wire.write(begin(id, output(3))),
  'a window without bounds, and nobody who reads': ({ wire }, id) => {
    wire.write(begin(id));
    wire.write(frame(TYPE.windowUpdate, 0, id, u32(0x7fffffff - 0xffff)));
    wire.write(frame(TYPE.windowUpdate, 0, 0, u32(0x7fffffff - 0xffff)));
    wire.pause();
  },
  'end that is not one': ({ wire }, id) => void wire.write(begin(id, exit, output(10))),
};

const HONEST_PING = JSON.stringify({
  agentVersion: VERSION,
  protocol: PROTOCOL_VERSION,
  node: '20.0.0',
  bootId: '00000000-0000-0000-0000-000000000000',
});
/** Streams of a client are odd and ascend: the session's own ping is the first. */
const PING_STREAM = 1;

/** Carries out the attack of that name on a host that has said who it is. */
export function attack(name: string, victim: Victim, nonce: string): void {
  const [phase, what = ''] = name.split(': ', 2);
  const inPreamble = PREAMBLE_ATTACKS[what];
  if (inPreamble) {
    inPreamble(victim, nonce);
    return;
  }
  const act = REPLY_ATTACKS[what] ?? EXEC_ATTACKS[what];
  if (!act) throw new Error(`no attack ${name}`);
  victim.wire.write(guestPreamble(nonce, VERSION));
  victim.wire.write(frame(TYPE.settings, 0, 0));
  const target = phase === 'connect' ? PING_STREAM : PING_STREAM + 2;
  onClientFrame(victim, ({ type, flags, streamId }) => {
    if (type === TYPE.settings && !(flags & FLAG.ack)) {
      victim.wire.write(frame(TYPE.settings, FLAG.ack, 0));
    } else if (type === TYPE.headers && streamId === target) {
      act(victim, streamId);
    } else if (type === TYPE.headers && streamId === PING_STREAM) {
      victim.wire.write(json(streamId, HONEST_PING));
    }
  });
}

/** The preface is not the first that comes: the host repeats its preamble until it is answered. */
function onClientFrame({ wire, over }: Victim, handle: (frame: ClientFrame) => void): void {
  const reader = new ClientReader();
  let before: Buffer | undefined = Buffer.alloc(0);
  const onData = (chunk: Buffer) => {
    let bytes = chunk;
    if (before) {
      before = Buffer.concat([before, chunk]);
      const at = before.indexOf(HTTP2_PREFACE);
      if (at < 0) return;
      bytes = before.subarray(at);
      before = undefined;
    }
    for (const each of reader.push(bytes)) handle(each);
  };
  wire.on('data', onData);
  over.addEventListener('abort', () => wire.off('data', onData));
}
