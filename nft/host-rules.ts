/** Table `inet qmp_agent`: what a VM may send to the host itself, and what the host may send it. */
import { icmpType, type IpFamily, senderOf, V4, V6 } from './families.ts';
import {
  ACCEPT,
  concat,
  DIRECTION,
  field,
  goto,
  hasAny,
  IIF,
  is,
  isNot,
  jump,
  NFPROTO,
  OIF,
  type Statement,
  STATE,
} from './json.ts';
import { mapOfLimit } from './names.ts';
import { over } from './parts.ts';
import { DEFAULT_LIMITS } from './policy.ts';

/** DNS connections by TCP of one VM at a time. */
const DNS_CONNECTIONS = 64;
/** Echo requests of one VM to its gateway per second. */
const PINGS_PER_SECOND = 20;

/** Of the host a VM sees its resolver, and what the host itself began. */
export function toHostRules(): Statement[][] {
  return [
    [is(NFPROTO, 'ipv6'), goto('to_host6')],
    [is(concat(IIF, field('ip', 'daddr')), '@dnsok'), jump('to_gateway')],
    ...begunByHostRules(V4),
  ];
}

/** Over IPv6, the gateway's address for ping, and what the host itself began. */
export function toHost6Rules(): Statement[][] {
  return [
    [isNot(concat(IIF, field('ip6', 'saddr')), '@self6'), goto('deny_ipv6')],
    ...pingRules(V6, is(concat(IIF, field('ip6', 'daddr')), '@gateway6')),
    ...begunByHostRules(V6),
  ];
}

function begunByHostRules(family: IpFamily): Statement[][] {
  const ours = is(concat(IIF, senderOf(family, 'reply')), `@self${family.suffix}`);
  return [
    [hasAny(STATE, 'established'), is(DIRECTION, 'reply'), ours, goto('up')],
    [hasAny(STATE, 'related'), ours, is(icmpType(family), family.icmpErrors), ACCEPT],
    [hasAny(STATE, 'related'), goto('deny_related')],
    [goto('deny_host')],
  ];
}

/** What the host's own programs send to a VM counts as any: published ports. The resolver's datagrams do not. */
export function outputRules(): Statement[][] {
  return [[is(OIF, '@taps'), hasAny(STATE, 'new', 'established', 'related'), goto('down')]];
}

/** The resolver, and ping. */
export function toGatewayRules(): Statement[][] {
  const dnsByTcp = is(field('tcp', 'dport'), 53);
  const tooManyConnections: Statement = {
    set: {
      op: 'add',
      elem: IIF,
      set: '@dnsconns',
      stmt: [{ 'ct count': { val: DNS_CONNECTIONS, inv: true } }],
    },
  };
  const dnsByUdp = is(field('udp', 'dport'), 53);
  const rate = DEFAULT_LIMITS.dnsQueriesPerSecond;
  return [
    [dnsByUdp, isNot(IIF, '@owndns'), over('dnsq', IIF, rate, rate * 2), goto('deny_dns')],
    [dnsByUdp, { limit: { map: { key: IIF, data: `@${mapOfLimit('dns')}` } } }, goto('deny_dns')],
    [dnsByUdp, ACCEPT],
    [dnsByTcp, hasAny(STATE, 'invalid', 'untracked', 'related'), goto('deny_state')],
    [dnsByTcp, hasAny(STATE, 'new'), tooManyConnections, goto('deny_connections')],
    [dnsByTcp, ACCEPT],
    ...pingRules(V4),
  ];
}

function pingRules(family: IpFamily, ...match: Statement[]): Statement[][] {
  const isPing = [is(icmpType(family), 'echo-request'), ...match];
  return [
    [...isPing, over('pingq', IIF, PINGS_PER_SECOND), goto('deny_rate')],
    [...isPing, ACCEPT],
  ];
}
