/** Which error each attack must end in, on whatever channel. */
import { EXEC_ATTACKS, PREAMBLE_ATTACKS, REPLY_ATTACKS } from './attacks.ts';

/** An attack by its full name, `phase: what`, and the code of the error that names it. */
export interface Expectation {
  readonly name: string;
  readonly code: RegExp;
}

/** Guests that stay within the protocol and do nothing: only a deadline can tell. */
const SILENT = new Set([
  'silent preamble',
  'garbage preamble',
  'slow preamble',
  'answer to another question',
  'absurd version',
  'silent HTTP/2',
  'silent reply',
  'slow reply',
  'no first frame',
]);
/** Attacks whose output is well-formed and never ends; the keep-alive finds out that nobody is there. */
const UNANSWERED = new Set([
  'endless marks of truncation',
  'output flood',
  'output flood, byte by byte',
  'exec that never ends',
  'a window without bounds, and nobody who reads',
]);

/** Garbage without end: whether its bound or the deadline comes first depends on the machine. */
const ENDLESS = new Set(['endless preamble', 'endless lines', 'endless JSON, byte by byte']);

const TIMEOUT = /^ERR_TIMEOUT$/;
const PROTOCOL = /^ERR_GUEST_PROTOCOL$/;
const DISCONNECTED = /^ERR_GUEST_DISCONNECTED$/;

function expectation(phase: string, what: string): Expectation {
  const name = `${phase}: ${what}`;
  if (what === 'wrong version') return { name, code: /^ERR_GUEST_VERSION$/ };
  // Node drops such a header block without a word while its session is new, and a reset comes later.
  if (name === 'connect: oversized headers') return { name, code: TIMEOUT };
  if (ENDLESS.has(what)) return { name, code: /^ERR_(GUEST_PROTOCOL|TIMEOUT)$/ };
  if (SILENT.has(what)) return { name, code: TIMEOUT };
  const isFlood = phase !== 'exec' && what !== 'exec that never ends';
  if (UNANSWERED.has(what) && !isFlood) return { name, code: DISCONNECTED };
  return { name, code: PROTOCOL };
}

/** All attacks. */
export const ATTACKS: readonly Expectation[] = [
  ...Object.keys(PREAMBLE_ATTACKS).map((what) => expectation('connect', what)),
  ...Object.keys(REPLY_ATTACKS).flatMap((what) => [
    expectation('connect', what),
    expectation('call', what),
  ]),
  ...Object.keys(EXEC_ATTACKS).map((what) => expectation('exec', what)),
  // Nobody reads what comes …
  expectation('unread', 'output flood'),
  expectation('unread', 'output flood, byte by byte'),
  expectation('unread', 'endless marks of truncation'),
  // … or nobody reads what we send, and claims to have room for it.
  { name: 'stdin: a window without bounds, and nobody who reads', code: DISCONNECTED },
];
