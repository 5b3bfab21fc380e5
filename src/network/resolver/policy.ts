/** A client's policy, compiled, and what it says of a query. Pure. */
import { ConfigError } from '../../errors.ts';
import {
  ipv4Within,
  NAT64_CIDR,
  parseRange,
  rangeOf,
  reverseAddress,
  type NamedRange,
} from './addresses.ts';
import { resolveLimits, type QueryLimits } from './limits.ts';
import { NamePolicy } from './names.ts';
import { badVersion, empty, limited, refused, type Outcome } from './outcome.ts';
import type { Query } from './query.ts';
import { isAddressType, serviceOf } from './record-types.ts';
import type { ResolverLimits, ResolverPolicy } from './types.ts';

/** A policy that has been checked. */
export interface CompiledPolicy {
  readonly names: NamePolicy;
  readonly allowAddresses: readonly NamedRange[];
  readonly isSilent: boolean;
  /** Whether it is told IPv6 addresses. */
  readonly hasIpv6: boolean;
  readonly limits: ResolverLimits;
}

/** @throws {@link ConfigError} naming what cannot be used */
export function compilePolicy(
  policy: ResolverPolicy = {},
  { hasIpv6 = false }: { hasIpv6?: boolean | undefined } = {},
): CompiledPolicy {
  const denial = policy.denial ?? 'refuse';
  if (denial !== 'refuse' && denial !== 'drop') {
    throw new ConfigError(`denial: ${JSON.stringify(denial)} is no way to deny`, {
      field: 'denial',
      value: denial,
      hint: 'give refuse or drop',
    });
  }
  return {
    names: new NamePolicy(policy.allowDomains, policy.denyDomains),
    allowAddresses: (policy.allowAddresses ?? []).map((range, index) =>
      parseRange(range, `allowAddresses[${index}]`),
    ),
    isSilent: denial === 'drop',
    hasIpv6,
    limits: resolveLimits(policy.limits),
  };
}

/** Leave to ask upstream. */
export interface Forward {
  readonly verdict: 'forward';
  /** The rule that allowed it. */
  readonly rule: string;
}

/**
 * Decides on a query that is within the rate. What is allowed and cannot be answered here is counted
 * against the limits of what goes upstream.
 */
export function judge(
  query: Query,
  policy: CompiledPolicy,
  limits: QueryLimits,
  never: readonly NamedRange[],
): Outcome | Forward {
  if ((query.edns?.version ?? 0) !== 0) return badVersion();
  if (!query.isInternet) return refused('class', 'only class IN is served');
  const service = serviceOf(query.type, policy);
  if (service === undefined) {
    return refused('record-type', `records of type ${query.typeName} are not served`);
  }
  if (!query.isPlain) return refused('name-syntax', 'the name has characters of no host name');
  const name = judgeName(query.name, policy, never);
  if (name.verdict !== 'forward') return name;
  const misshapen = limits.checkName(query.name);
  if (misshapen !== undefined) return limited(misshapen);
  if (service === 'empty') return empty(name.rule);
  const spent = limits.spend(query.name, isAddressType(query.type));
  return spent === undefined ? name : limited(spent);
}

/** What the policy says of the name alone. */
export function judgeName(
  name: string,
  policy: CompiledPolicy,
  never: readonly NamedRange[],
): Outcome | Forward {
  const { allowed, rule } = policy.names.decide(name);
  if (!allowed) {
    return rule === 'not-allowed'
      ? refused(rule, 'the name is not allowed (--allow-domain)')
      : refused(rule, 'the name is denied');
  }
  // RFC 6761, 6.3. Upstream's answer would be a loopback address, and look like rebinding.
  if (/(^|\.)localhost$/.test(name)) {
    return refused('special-name', 'localhost is a matter of the guest itself (/etc/hosts)');
  }
  // Names of private addresses are the map of a network that the guest has no business in.
  const address = reverseAddress(name);
  const range = address === undefined ? undefined : forbiddenRange(address, policy, never);
  if (range === undefined) return { verdict: 'forward', rule };
  return refused(`reverse ${range.cidr}`, `no names of addresses in ${range.cidr}`);
}

/** The range because of which the address may not be handed out. */
export function forbiddenRange(
  address: string,
  policy: CompiledPolicy,
  never: readonly NamedRange[],
): NamedRange | undefined {
  if (rangeOf(address, policy.allowAddresses) !== undefined) return undefined;
  return rangeOf(address, never);
}

/**
 * Whether upstream has made the address up of a public one of IPv4, for those who have no IPv4 (DNS64, RFC 6147). It
 * may not be handed out, and is no name's way in.
 */
export function isMadeUp(
  address: string,
  policy: CompiledPolicy,
  never: readonly NamedRange[],
): boolean {
  if (forbiddenRange(address, policy, never)?.cidr !== NAT64_CIDR) return false;
  return forbiddenRange(ipv4Within(address), policy, never) === undefined;
}
