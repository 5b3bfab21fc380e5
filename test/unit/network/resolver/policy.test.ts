import { describe, expect, it } from 'vitest';
import { NEVER_RANGES } from '../../../../src/network/resolver/addresses.ts';
import { QueryLimits } from '../../../../src/network/resolver/limits.ts';
import { compilePolicy, forbiddenRange, judge } from '../../../../src/network/resolver/policy.ts';
import { parseQuery, type Query } from '../../../../src/network/resolver/query.ts';
import type { ResolverPolicy } from '../../../../src/network/resolver/types.ts';
import { packetOf, queryOf, wireName } from './wire.ts';

/** A query of a type by number. */
function ofType(type: number, klass = 1): Query {
  const end = Buffer.from([type >> 8, type & 0xff, 0, klass]);
  return parseQuery(packetOf({}, wireName('example', 'org'), end)) as Query;
}

function judged(query: Query, policy: ResolverPolicy = {}, o: { hasIpv6?: boolean } = {}) {
  const compiled = compilePolicy(policy, o);
  const limits = new QueryLimits(compiled.limits, () => 0);
  const { verdict, rule } = judge(query, compiled, limits, NEVER_RANGES);
  return `${verdict} ${rule}`;
}

describe('record types', () => {
  it.each(['A', 'NS', 'CNAME', 'SOA', 'PTR', 'MX', 'TXT', 'SRV', 'CAA'])('forwards %s', (type) => {
    expect(judged(queryOf('example.org', type))).toBe('forward allow *');
  });

  it.each([
    ['AAAA', 28],
    ['SVCB', 64],
    ['HTTPS', 65],
  ])('answers %s as empty', (_, type) => {
    expect(judged(ofType(type))).toBe('answered allow *');
  });

  it('forwards AAAA of whoever has IPv6, within the limits of addresses', () => {
    expect(judged(ofType(28), {}, { hasIpv6: true })).toBe('forward allow *');
    expect(judged(ofType(65), {}, { hasIpv6: true })).toBe('answered allow *');
    const compiled = compilePolicy({ limits: { otherQueriesPerMinute: 1 } }, { hasIpv6: true });
    const limits = new QueryLimits(compiled.limits, () => 0);
    const ask = (type: string) =>
      judge(queryOf('example.org', type), compiled, limits, NEVER_RANGES).rule;
    expect(['TXT', 'AAAA', 'AAAA', 'TXT'].map(ask)).toEqual([
      ...['allow *', 'allow *', 'allow *', 'limit otherQueriesPerMinute'],
    ]);
  });

  it.each([
    ['NULL', 10],
    ['HINFO', 13],
    ['KEY', 25],
    ['NAPTR', 35],
    ['OPT', 41],
    ['DNSKEY', 48],
    ['TKEY', 249],
    ['IXFR', 251],
    ['AXFR', 252],
    ['MAILB', 253],
    ['ANY', 255],
    ['URI', 256],
    ['private use', 65_300],
    ['0', 0],
  ])('refuses %s', (_, type) => {
    expect(judged(ofType(type))).toBe('refused record-type');
  });

  it.each([3, 4, 255])('refuses class %d', (klass) => {
    expect(judged(ofType(1, klass))).toBe('refused class');
  });
});

describe('names', () => {
  const policy: ResolverPolicy = {
    allowDomains: ['example.org', '*.in-addr.arpa', '*.ip6.arpa'],
    denyDomains: ['5.2.0.192.in-addr.arpa'],
    allowAddresses: ['10.1.0.0/16', 'fd00:1::/32'],
  };
  it.each([
    ['EXAMPLE.org', 'forward allow example.org'],
    ['a.example.org', 'refused not-allowed'],
    ['4.2.0.192.in-addr.arpa', 'forward allow *.in-addr.arpa'],
    ['5.2.0.192.in-addr.arpa', 'refused deny 5.2.0.192.in-addr.arpa'],
    ['4.3.2.10.in-addr.arpa', 'refused reverse 10.0.0.0/8'],
    ['254.169.254.169.in-addr.arpa', 'refused reverse 169.254.0.0/16'],
    ['4.3.1.10.in-addr.arpa', 'forward allow *.in-addr.arpa'],
    ['2.0.0.0.0.0.d.f.ip6.arpa', 'refused reverse fc00::/7'],
    ['1.0.0.0.0.0.d.f.ip6.arpa', 'forward allow *.ip6.arpa'],
    ['0.0.7.4.6.0.6.2.ip6.arpa', 'forward allow *.ip6.arpa'],
    ['8.b.d.0.1.0.0.2.ip6.arpa', 'refused reverse 2001:db8::/32'],
  ])('%s: %s', (name, verdict) => {
    expect(judged(queryOf(name, 'PTR'), policy)).toBe(verdict);
  });

  it('are refused before their form is looked at, and not counted', () => {
    const compiled = compilePolicy({
      allowDomains: ['*.example.org'],
      limits: { namesPerMinute: 1 },
    });
    const limits = new QueryLimits(compiled.limits, () => 0);
    const ask = (name: string) => judge(queryOf(name), compiled, limits, NEVER_RANGES).rule;
    expect(ask(`${'a'.repeat(60)}.evil.test`)).toBe('not-allowed');
    expect(ask('b.evil.test')).toBe('not-allowed');
    expect(ask('a.example.org')).toBe('allow *.example.org');
    expect(ask('b.example.org')).toBe('limit namesPerMinute');
    expect(ask(`${'a'.repeat(60)}.example.org`)).toBe('limit labelBytes');
  });

  it.each([
    ['localhost', 'refused special-name'],
    ['a.LocalHost', 'refused special-name'],
    ['notlocalhost', 'forward allow *'],
    ['localhost.example.org', 'forward allow *'],
  ])('%s: %s', (name, verdict) => {
    expect(judged(queryOf(name))).toBe(verdict);
  });

  it('with characters of no host name are refused, also where all are allowed', () => {
    const odd = parseQuery(
      packetOf({}, wireName('a b', 'org'), Buffer.from([0, 1, 0, 1])),
    ) as Query;
    expect(judged(odd)).toBe('refused name-syntax');
  });
});

describe('addresses', () => {
  it('of private networks are forbidden unless allowed', () => {
    const policy = compilePolicy({ allowAddresses: ['10.1.2.3', '192.168.0.0/24'] });
    const forbidden = (address: string) => forbiddenRange(address, policy, NEVER_RANGES)?.cidr;
    expect(forbidden('10.1.2.3')).toBeUndefined();
    expect(forbidden('10.1.2.4')).toBe('10.0.0.0/8');
    expect(forbidden('192.168.0.9')).toBeUndefined();
    expect(forbidden('192.168.1.9')).toBe('192.168.0.0/16');
    expect(forbidden('93.184.216.34')).toBeUndefined();
  });

  it('of IPv6 neither, and no range of one family allows any of the other', () => {
    const policy = compilePolicy({ allowAddresses: ['fd00:1::/64', '2001:db8::7', '0.0.0.0/0'] });
    const forbidden = (address: string) => forbiddenRange(address, policy, NEVER_RANGES)?.cidr;
    expect(forbidden('fd00:1::9')).toBeUndefined();
    expect(forbidden('fd00:1:0:1::9')).toBe('fc00::/7');
    expect(forbidden('2001:db8::7')).toBeUndefined();
    expect(forbidden('2001:db8::8')).toBe('2001:db8::/32');
    expect(forbidden('::ffff:10.0.0.1')).toBe('::ffff:0:0/96');
    expect(forbidden('::')).toBe('::/96');
    expect(forbidden('2606:4700::1')).toBeUndefined();
    const all = compilePolicy({ allowAddresses: ['::/0'] });
    expect(forbiddenRange('10.0.0.1', all, NEVER_RANGES)?.cidr).toBe('10.0.0.0/8');
  });
});

it.each([
  [{ allowDomains: ['a b'] }, /allowDomains\[0\]/],
  [{ denyDomains: ['x.org', '10.0.0.1'] }, /denyDomains\[1\]/],
  [{ allowAddresses: ['10.0.0.0/8', 'lan'] }, /allowAddresses\[1\]/],
  [{ denial: 'deny' as 'drop' }, /denial/],
  [{ limits: { labels: -1 } }, /limits\.labels/],
])('refuses the policy %j', (policy, message) => {
  expect(() => compilePolicy(policy)).toThrow(message);
});
