/** Patterns of domain names, by value. */
import { isIPv4 } from 'node:net';
import { domainToASCII } from 'node:url';
import { ConfigError } from '../../errors.ts';

/** Patterns that one client may have, allowed and denied ones each. */
const MAX_PATTERNS = 10_000;
const MAX_NAME_BYTES = 253;
const MAX_LABEL_BYTES = 63;

/** What a policy says of a name, and by which of its patterns. */
export interface NameDecision {
  readonly allowed: boolean;
  /** `allow PATTERN`, `deny PATTERN`, or `not-allowed` where no pattern fits. */
  readonly rule: string;
}

/** A list of patterns, to be asked in time that does not grow with its length. */
class PatternSet {
  readonly #exact = new Map<string, string>();
  /** By the name that stands behind `*.`; the empty one is `*`. */
  readonly #below = new Map<string, string>();

  constructor(patterns: readonly string[], field: string) {
    if (patterns.length > MAX_PATTERNS) {
      throw new ConfigError(`${field}: ${patterns.length} patterns`, {
        field,
        value: patterns.length,
        hint: `give at most ${MAX_PATTERNS}; *.example.org stands for every name below it`,
      });
    }
    patterns.forEach((pattern, index) => {
      const { below, name } = parsePattern(pattern, `${field}[${index}]`);
      (below ? this.#below : this.#exact).set(name, pattern);
    });
  }

  /** The pattern that fits the name, as it was written. */
  match(name: string): string | undefined {
    const exact = this.#exact.get(name);
    if (exact !== undefined) return exact;
    for (let dot = name.indexOf('.'); dot >= 0; dot = name.indexOf('.', dot + 1)) {
      const below = this.#below.get(name.slice(dot + 1));
      if (below !== undefined) return below;
    }
    return this.#below.get('');
  }
}

/** The names that a client may ask for. Denied patterns win over allowed ones, whichever is longer. */
export class NamePolicy {
  readonly #allow: PatternSet;
  readonly #deny: PatternSet;

  /** @throws {@link ConfigError} for a pattern that is none */
  constructor(allow: readonly string[] = ['*'], deny: readonly string[] = []) {
    this.#allow = new PatternSet(allow, 'allowDomains');
    this.#deny = new PatternSet(deny, 'denyDomains');
  }

  /** @param name in lower case, without the final dot; `''` is the root */
  decide(name: string): NameDecision {
    const denied = this.#deny.match(name);
    if (denied !== undefined) return { allowed: false, rule: `deny ${denied}` };
    const allowed = this.#allow.match(name);
    if (allowed !== undefined) return { allowed: true, rule: `allow ${allowed}` };
    return { allowed: false, rule: 'not-allowed' };
  }
}

/**
 * Reads `example.org`, `*.example.org` or `*`. Upper case, a final dot and international names
 * (`bücher.example`, `xn--bcher-kva.example`) are taken.
 *
 * @param field where it was given, for the error
 * @throws {@link ConfigError} where it is no pattern
 */
export function parsePattern(pattern: string, field: string): { below: boolean; name: string } {
  const text = pattern.trim();
  if (text === '*') return { below: true, name: '' };
  const below = text.startsWith('*.');
  const name = normalise(below ? text.slice(2) : text);
  if (name === undefined) {
    throw new ConfigError(`${field}: ${JSON.stringify(pattern)} is no pattern of domain names`, {
      field,
      value: pattern,
      hint: isAddressLike(text)
        ? 'allow addresses by CIDR, names by domain'
        : 'write example.org for this name, *.example.org for the names below it, * for all',
    });
  }
  return { below, name };
}

/** Whether a name is one of those that a pattern stands for; both as {@link parsePattern} reads them. */
export function fits(pattern: string, name: string): boolean {
  return pattern.startsWith('*.') ? name.endsWith(pattern.slice(1)) : name === pattern;
}

/** Whether there may be a name that both patterns stand for. */
export function meet(one: string, other: string): boolean {
  return one === other || fits(one, other) || fits(other, one); // of two, one holds the other or none does
}

/** A name as it goes over the wire, in lower case; undefined where it is none. */
function normalise(text: string): string | undefined {
  const given = text.endsWith('.') ? text.slice(0, -1) : text;
  // domainToASCII is a URL's: it would decode %61 and read 127.1 as an address.
  if (!/^[\p{L}\p{M}\p{N}_.\u3002\u200C\u200D-]+$/u.test(given) || isAddressLike(given)) {
    return undefined;
  }
  const name = domainToASCII(given).toLowerCase();
  return isName(name) && !isAddressLike(name) ? name : undefined;
}

function isName(name: string): boolean {
  if (name.length === 0 || name.length > MAX_NAME_BYTES) return false;
  return name
    .split('.')
    .every((label) => /^[a-z0-9_-]+$/.test(label) && label.length <= MAX_LABEL_BYTES);
}

/** No top-level domain is a number (RFC 3696, 2), so such a name is an address or a slip. */
function isAddressLike(text: string): boolean {
  return isIPv4(text) || /(^|\.)(\d+|0x[0-9a-f]*)\.?$/i.test(text) || /[:/]/.test(text);
}

/**
 * The last two labels of a name: what stands for the domain that somebody registered. Short of the
 * Public Suffix List, all of `co.uk` is one parent; the bound that is counted by it has room for that.
 */
export function parentOf(name: string): string {
  return name.split('.').slice(-2).join('.');
}
