/** What becomes of a query: the reply, and what is told of it. */
import type { Reply } from './packet.ts';
import { RCODE, RCODE_BADVERS } from './query.ts';
import type { QueryVerdict, ResolverLimits } from './types.ts';

/** A query's end. */
export interface Outcome {
  readonly verdict: QueryVerdict;
  /** What decided: `allow PATTERN`, `deny PATTERN`, `not-allowed`, `limit NAME`, `never CIDR`, … */
  readonly rule?: string | undefined;
  readonly reply: Reply;
  readonly addresses?: readonly string[];
  /** Of a failure: what went wrong. */
  readonly error?: string;
}

/** Codes of Extended DNS Errors (RFC 8914, 4). */
const EDE = { other: 0, blocked: 15, prohibited: 18, noReachableAuthority: 22 };

/** Against the policy. `text` goes to the guest, so that it need not look like a broken network. */
export function refused(rule: string, text: string): Outcome {
  return {
    verdict: 'refused',
    rule,
    reply: { rcode: RCODE.refused, reason: { code: EDE.prohibited, text: `qmp-agent: ${text}` } },
  };
}

/** Past a limit. */
export function limited(limit: keyof ResolverLimits | 'allPendingQueries'): Outcome {
  const text = `qmp-agent: past the limit ${limit}`;
  return {
    verdict: 'limited',
    rule: `limit ${limit}`,
    reply: { rcode: RCODE.refused, reason: { code: EDE.prohibited, text } },
  };
}

/** The answer holds an address that no answer may hold. */
export function rebinding(cidr: string, addresses: readonly string[]): Outcome {
  const text = `qmp-agent: the answer points into ${cidr} (--allow-cidr)`;
  return {
    verdict: 'rebinding',
    rule: `never ${cidr}`,
    addresses,
    reply: { rcode: RCODE.refused, reason: { code: EDE.blocked, text } },
  };
}

/** Not the guest's fault. */
export function failed(
  rule: string | undefined,
  kind: 'upstream' | 'here',
  error: string,
): Outcome {
  const code = kind === 'upstream' ? EDE.noReachableAuthority : EDE.other;
  const text = kind === 'upstream' ? 'qmp-agent: no upstream server answers' : 'qmp-agent: failed';
  return {
    verdict: 'failed',
    rule,
    error,
    reply: { rcode: RCODE.servFail, reason: { code, text } },
  };
}

/** The name is there, such a record is not: what makes a client take to IPv4 at once. */
export function empty(rule: string): Outcome {
  return { verdict: 'answered', rule, reply: { rcode: RCODE.noError } };
}

/** A version of EDNS that does not exist yet. */
export function badVersion(): Outcome {
  return { verdict: 'refused', rule: 'edns-version', reply: { rcode: RCODE_BADVERS } };
}
