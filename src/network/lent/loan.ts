/** What user and lender say to each other: one line of JSON each way. */
import { join } from 'node:path';
import type { VmNetwork } from '../../../nft/index.ts';
import { LENT_DIR } from './lent-taps.ts';

/** A tap that is lent out. */
export interface Loan {
  /** Another one for each VM, and nobody's to guess: who knows it may read what its VM does. */
  readonly id: string;
  /** Where what the VM does is recorded, for its user to read. */
  readonly logPath: string;
}

/**
 * `take`: some tap. `renew`: none of the connections lives on. `give`: it is needed no more, and its log, which is whole when
 * that is answered, is kept until `forget`: it has been copied.
 */
export type LoanRequest =
  { readonly do: 'take' } | { readonly do: 'renew' | 'give' | 'forget'; readonly id: string };

/** Whether who asks has a use for the answer; the others tell that something is over. */
export function isForUse(request: LoanRequest): boolean {
  return request.do === 'take' || request.do === 'renew';
}

/** `open`, to `give`: a process has the tap open, QEMU say, which is about to die. It is to be said again then. */
export type LoanReply =
  | { readonly loan: Loan; readonly network: VmNetwork }
  | { readonly given: true }
  | { readonly open: true }
  | { readonly refused: string; readonly hint: string };

/** Bytes of a loan's id. */
export const LOAN_ID_BYTES = 16;
const LOAN_ID = new RegExp(`^[0-9a-f]{${2 * LOAN_ID_BYTES}}$`);
/** Longest request, in characters. */
export const MAX_REQUEST_CHARS = 256;
/** Longest reply. */
export const MAX_REPLY_CHARS = 64 * 1024;

/** The socket of one user, who alone may connect to it. */
export function lenderSocket(uid: number): string {
  return join(LENT_DIR, `uid-${uid}.sock`);
}

/** Undefined: it is none. Pure. */
export function parseRequest(line: string): LoanRequest | undefined {
  const { do: what, id } = (parsed(line) ?? {}) as { do?: unknown; id?: unknown };
  if (what === 'take') return { do: what };
  const isKnown = what === 'renew' || what === 'give' || what === 'forget';
  return isKnown && typeof id === 'string' && LOAN_ID.test(id) ? { do: what, id } : undefined;
}

/** Undefined: it was cut off. The lender is root's, and believed. Pure. */
export function parseReply(line: string): LoanReply | undefined {
  return line.endsWith('\n') ? (parsed(line) as LoanReply | undefined) : undefined;
}

function parsed(line: string): unknown {
  try {
    return JSON.parse(line);
  } catch {
    return undefined;
  }
}
