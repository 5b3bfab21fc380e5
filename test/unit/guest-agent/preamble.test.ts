import { describe, expect, it } from 'vitest';
import {
  BREAK_TAIL_BYTES,
  guestPreamble,
  GuestPreambleReader,
  HostPreambleReader,
  hostPreamble,
  HTTP2_PREFACE,
  isWireBreak,
  PREAMBLE_LINE_BYTES,
  WIRE_BREAK,
  type GuestPreambleEvent,
} from '../../../guest-agent/preamble.ts';
import { PROTOCOL_VERSION } from '../../../guest-agent/protocol.ts';
import { cut, randomBuffer, seeded } from './random.ts';

const NONCE = '0123456789abcdef0123456789abcdef';
const OTHER = 'f'.repeat(32);
const PREFACE = `${HTTP2_PREFACE}\r\n\r\nSM\r\n\r\n`;

/** Feeds text in one piece, or in the pieces given. */
function guestSees(...pieces: (string | Buffer)[]): GuestPreambleEvent[] {
  const reader = new GuestPreambleReader();
  return pieces.flatMap((piece) => reader.push(Buffer.from(piece)));
}

describe('GuestPreambleReader', () => {
  it('answers each nonce once', () => {
    const hello = hostPreamble(NONCE);
    expect(guestSees(hello, hello, hostPreamble(OTHER), hello)).toEqual([
      { kind: 'hello', nonce: NONCE },
      { kind: 'hello', nonce: OTHER },
      { kind: 'hello', nonce: NONCE },
    ]);
  });

  it('hands over to HTTP/2 with its whole preface, cut wherever', () => {
    const all = Buffer.from(`${hostPreamble(NONCE)}${PREFACE}rest`);
    for (let at = 1; at < all.length; at += 1) {
      const reader = new GuestPreambleReader();
      const events = reader.push(all.subarray(0, at));
      let rest: Buffer = Buffer.alloc(0);
      for (const event of events) if (event.kind === 'http2') rest = event.rest;
      if (rest.length === 0) {
        for (const event of reader.push(all.subarray(at))) {
          if (event.kind === 'http2') rest = event.rest;
        }
      } else {
        rest = Buffer.concat([rest, all.subarray(at)]);
      }
      expect(rest.toString(), `cut at ${at}`).toBe(`${PREFACE}rest`);
    }
  });

  it('skips what is left of an earlier session, its preface too', () => {
    expect(guestSees(PREFACE, '\0\0\x08garbage\n\n\n', hostPreamble(NONCE))).toEqual([
      { kind: 'hello', nonce: NONCE },
    ]);
  });

  it('finds a hello behind a line that never ended', () => {
    const filler = '\n'.repeat(10);
    expect(guestSees('x'.repeat(100_000), filler, hostPreamble(NONCE))).toEqual([
      { kind: 'hello', nonce: NONCE },
    ]);
  });

  it('answers a host of another version: it is the host that decides', () => {
    expect(guestSees(`QMPAGENT 999 ${NONCE}\n`)).toEqual([{ kind: 'hello', nonce: NONCE }]);
  });

  it.each([
    `QMPAGENT ${PROTOCOL_VERSION} short\n`,
    `QMPAGENT ${PROTOCOL_VERSION} ${NONCE.toUpperCase()}\n`,
    `QMPAGENT ${PROTOCOL_VERSION} ${NONCE} more\n`,
    `qmpagent ${PROTOCOL_VERSION} ${NONCE}\n`,
    `QMPAGENT ${PROTOCOL_VERSION} ${'a'.repeat(65)}\n`,
  ])('ignores %j', (line) => {
    expect(guestSees(line)).toEqual([]);
  });

  it('sees nothing in random bytes', () => {
    const random = seeded(11);
    const reader = new GuestPreambleReader();
    for (const piece of cut(random, randomBuffer(random, 100_000), 5000)) {
      expect(reader.push(piece)).toEqual([]);
    }
  });
});

describe('HostPreambleReader', () => {
  const answer = guestPreamble(NONCE, '1.2.3');

  it('finds the answer to its own question, cut wherever, and what follows it', () => {
    const stale = `old session\0\xff${guestPreamble(OTHER, '0.0.1')}half a line `;
    const all = Buffer.from(`${stale}${answer}rest`, 'latin1');
    for (let at = 1; at < all.length; at += 1) {
      const reader = new HostPreambleReader(NONCE);
      const early = reader.push(all.subarray(0, at));
      const hello = early ?? reader.push(all.subarray(at));
      const rest = Buffer.concat([hello!.rest, early ? all.subarray(at) : Buffer.alloc(0)]);
      expect({ ...hello, rest: rest.toString() }, `cut at ${at}`).toEqual({
        protocol: PROTOCOL_VERSION,
        agentVersion: '1.2.3',
        rest: 'rest',
      });
    }
  });

  it('tells of another version of the protocol', () => {
    const hello = new HostPreambleReader(NONCE).push(Buffer.from(`QMPAGENT 7 ${NONCE} 9.9\n`));
    expect(hello).toMatchObject({ protocol: 7, agentVersion: '9.9' });
  });

  it.each([
    guestPreamble(OTHER, '1.2.3'),
    `QMPAGENT x ${NONCE} 1.2.3\n`,
    `QMPAGENT ${'9'.repeat(90)} ${NONCE} 1.2.3\n`,
    `QMPAGENT 1 ${NONCE}\n`,
    `QMPAGENT 1 ${NONCE} ${'v'.repeat(33)}\n`,
    `QMPAGENT 1 ${NONCE} \x1b[31m\n`,
    `QMPAGENT 1 ${NONCE} 1.2.3 more\n`,
    `${'x'.repeat(PREAMBLE_LINE_BYTES)}\n`,
  ])('ignores %j', (line) => {
    expect(new HostPreambleReader(NONCE).push(Buffer.from(line))).toBeUndefined();
  });

  it('counts every byte, so that its caller can stop', () => {
    const random = seeded(13);
    const reader = new HostPreambleReader(NONCE);
    for (const piece of cut(random, randomBuffer(random, 50_000), 3000)) {
      expect(reader.push(piece)).toBeUndefined();
    }
    expect(reader.bytes).toBe(50_000);
  });
});

describe('a break of the wire', () => {
  const tail = (text: string | Buffer) => Buffer.from(text).subarray(-BREAK_TAIL_BYTES);

  it('is known by its end, and while it comes', () => {
    expect(isWireBreak(tail(WIRE_BREAK))).toBe(true);
    expect(isWireBreak(tail(WIRE_BREAK.subarray(0, 4_096)))).toBe(true);
  });

  it.each(['', ' \n', `${' '.repeat(100)}x\n`, `x\n${' '.repeat(BREAK_TAIL_BYTES - 2)}`])(
    'is not %j',
    (text) => expect(isWireBreak(tail(text))).toBe(false),
  );

  it('is skipped by both ends where no session is', () => {
    const hello = hostPreamble(NONCE);
    expect(guestSees(WIRE_BREAK, hello)).toEqual([{ kind: 'hello', nonce: NONCE }]);
    const reader = new HostPreambleReader(NONCE);
    expect(
      reader.push(Buffer.concat([WIRE_BREAK, Buffer.from(guestPreamble(NONCE, '1.2.3'))])),
    ).toMatchObject({ agentVersion: '1.2.3' });
  });
});
