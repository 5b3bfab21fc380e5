/** What differs between IPv4 and IPv6, so that a rule can be written once for both. */
import type { IpVersion } from './address.ts';
import { ct, type Expression, field } from './json.ts';

/** One family: its words in nft, and the names of what it has of its own. */
export interface IpFamily {
  readonly version: IpVersion;
  /** Behind the names of sets and chains of the shared table that each family has of its own. */
  readonly suffix: '' | '6';
  readonly nfproto: 'ipv4' | 'ipv6';
  readonly header: 'ip' | 'ip6';
  readonly addressType: 'ipv4_addr' | 'ipv6_addr';
  readonly icmp: 'icmp' | 'icmpv6';
  /** ICMP as the protocol behind the header. */
  readonly icmpProtocol: 'icmp' | 'ipv6-icmp';
  /** Types of ICMP errors. */
  readonly icmpErrors: Expression;
  /** The CIDR of all addresses. */
  readonly everything: string;
}

export const V4: IpFamily = {
  version: 4,
  suffix: '',
  nfproto: 'ipv4',
  header: 'ip',
  addressType: 'ipv4_addr',
  icmp: 'icmp',
  icmpProtocol: 'icmp',
  icmpErrors: { set: ['destination-unreachable', 'time-exceeded', 'parameter-problem'] },
  everything: '0.0.0.0/0',
};

/** Types of ICMPv6 errors, from the first to the last: of packet-too-big too (RFC 4443). */
export const ICMP6_ERRORS: Expression = { range: [1, 4] };

export const V6: IpFamily = {
  version: 6,
  suffix: '6',
  nfproto: 'ipv6',
  header: 'ip6',
  addressType: 'ipv6_addr',
  icmp: 'icmpv6',
  icmpProtocol: 'ipv6-icmp',
  icmpErrors: ICMP6_ERRORS,
  everything: '::/0',
};

/** Where a connection's first packet went: so the same rule fits its replies too. A packet of the other family never does. */
export const originalDestination = (family: IpFamily): Expression =>
  ct(`${family.header} daddr`, 'original');

/** The sender of a connection's first packet, or of its first reply. */
export const senderOf = (family: IpFamily, dir: 'original' | 'reply'): Expression =>
  ct(`${family.header} saddr`, dir);

export const icmpType = (family: IpFamily): Expression => field(family.icmp, 'type');
