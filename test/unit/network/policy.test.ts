import { describe, expect, it } from 'vitest';
import { addVm, checkPolicy, DEFAULT_POLICY } from '../../../nft/index.ts';
import { ConfigError } from '../../../src/errors.ts';
import { checkReach, makePolicy, type EgressOptions } from '../../../src/network/policy.ts';

/** That the rules can be built is the proof that the policy is one. */
const build = (o: EgressOptions) => {
  const policy = makePolicy(o);
  const rules = addVm({
    ...{ tap: 'qmpa1', mac: '02:00:00:00:00:01', generation: 1, policy: policy.rules },
    ...{ guestAddress: '10.210.0.3', gatewayAddress: '10.210.0.2' },
  });
  expect(rules.length).toBeGreaterThan(0);
  return policy;
};

it('by default opens web, ssh and git to public addresses, and every name', () => {
  expect(build({})).toEqual({
    rules: {
      ...DEFAULT_POLICY,
      rules: [
        {
          id: 1,
          title: 'public addresses',
          action: 'allow',
          protocol: 'tcp',
          ports: [80, 443, 22, 9418],
          destination: { kind: 'public' },
        },
      ],
    },
    lastId: 1,
    names: [],
    allowDomains: undefined,
    denyDomains: [],
  });
});

it('names that are allowed are all that is open', () => {
  const policy = build({ allowDomains: ['Example.org.', '*.example.org', 'bücher.example:8443'] });
  expect(policy.rules.rules).toMatchObject([
    { id: 1, title: '--allow-domain Example.org.', destination: { kind: 'dynamic' } },
    { id: 2, title: '--allow-domain *.example.org', ports: [80, 443, 22, 9418] },
    { id: 3, title: '--allow-domain bücher.example:8443', ports: [8443] },
  ]);
  expect(policy.names).toEqual([
    { pattern: 'example.org', ruleId: 1 },
    { pattern: '*.example.org', ruleId: 2 },
    { pattern: 'xn--bcher-kva.example', ruleId: 3 },
  ]);
  expect(policy.allowDomains).toEqual(['example.org', '*.example.org', 'xn--bcher-kva.example']);
  expect(build({ allowDomains: ['example.org'], public: true }).allowDomains).toBeUndefined();
  expect(build({ public: false })).toMatchObject({ allowDomains: [], rules: { rules: [] } });
});

it('a private address is open where it is named, with its port', () => {
  const { rules } = build({
    allowCidrs: ['10.1.2.3:5432', '93.184.0.0/16'],
    allowPorts: ['443/udp'],
  });
  expect(rules.exceptions).toEqual(['10.1.2.3']);
  expect(rules.rules).toMatchObject([
    { protocol: 'tcp', ports: [5432], destination: { cidrs: ['10.1.2.3'] } },
    { protocol: 'tcp', destination: { cidrs: ['93.184.0.0/16'] } },
    { protocol: 'udp', ports: [443], destination: { cidrs: ['93.184.0.0/16'] } },
    { protocol: 'tcp', destination: { kind: 'public' } },
    { protocol: 'udp', ports: [443], destination: { kind: 'public' } },
  ]);
});

it('so is one of IPv6, in brackets where it has a port', () => {
  const { rules } = build({
    allowCidrs: [
      'fd00:1::/64',
      '[FD00:2::7]:5432',
      '[2001:db8::/32]:8000-8010',
      '2606:4700::1/128',
    ],
    denyCidrs: ['2001:db8:bad::/48', '::/0'],
  });
  expect(rules.exceptions).toEqual(['fd00:1::/64', 'FD00:2::7', '2001:db8::/32']);
  expect(rules.rules.filter(({ action }) => action === 'allow')).toMatchObject([
    { title: '--allow-cidr fd00:1::/64', destination: { cidrs: ['fd00:1::/64'] } },
    {
      title: '--allow-cidr [FD00:2::7]:5432',
      ports: [5432],
      destination: { cidrs: ['FD00:2::7'] },
    },
    { ports: [[8000, 8010]], destination: { cidrs: ['2001:db8::/32'] } },
    { ports: [80, 443, 22, 9418], destination: { cidrs: ['2606:4700::1'] } },
    { destination: { kind: 'public' } },
  ]);
  expect(rules.rules.slice(0, 3)).toMatchObject([
    { action: 'deny', protocol: 'tcp', destination: { cidrs: ['2001:db8:bad::/48'] } },
    { action: 'deny', protocol: 'udp' },
    { action: 'deny', protocol: 'icmp' },
  ]);
  expect(() => makePolicy({ allowCidrs: ['2001:db8::/32:443'] })).toThrow(
    expect.objectContaining({ hint: 'Put what has a port in brackets: [2001:db8::/32]:443.' }),
  );
});

it('a VM without IPv6 is not asked to open any, and may have all of it shut', () => {
  const o = { allowCidrs: ['10.1.2.3', '[2001:db8::1]:443'], denyCidrs: ['::/0'] };
  expect(() => checkReach(o, { hasIpv6: true })).not.toThrow();
  expect(() => checkReach({ ...o, allowCidrs: ['10.1.2.3:80'] }, { hasIpv6: false })).not.toThrow();
  expect(() => checkReach(o, { hasIpv6: false })).toThrow(
    expect.objectContaining({
      ...{ code: 'ERR_CONFIG', field: 'network.allowCidrs', value: '[2001:db8::1]:443' },
      hint: expect.stringContaining('--ipv6'),
    }),
  );
});

it('what is denied stands before what is allowed', () => {
  const { rules, denyDomains } = build({
    denyCidrs: ['203.0.113.0/24'],
    denyDomains: ['*.ads.example'],
    allowPorts: ['8000-8010'],
    denial: 'drop',
    limits: { connections: 5 },
  });
  expect(rules.rules.map(({ action, protocol }) => `${action} ${protocol}`)).toEqual([
    'deny tcp',
    'deny udp',
    'deny icmp',
    'allow tcp',
  ]);
  expect(rules.rules[3]?.ports).toEqual([80, 443, 22, 9418, [8000, 8010]]);
  expect(denyDomains).toEqual(['*.ads.example']);
  expect(rules).toMatchObject({
    denial: 'drop',
    limits: { connections: 5, newConnectionsPerSecond: 200 },
  });
});

it('a rule keeps its id as long as it is the same, and gives it to no other', () => {
  const first = makePolicy({ allowDomains: ['a.example', 'b.example'] });
  const second = makePolicy({ allowDomains: ['b.example', 'c.example'] }, first);
  expect(second.names).toEqual([
    { pattern: 'b.example', ruleId: expect.any(Number) },
    { pattern: 'c.example', ruleId: expect.any(Number) },
  ]);
  expect(second.lastId).toBeGreaterThanOrEqual(first.lastId);
});

it.each<[string, EgressOptions]>([
  ['network.allowDomains', { allowDomains: ['exa mple.org'] }],
  ['network.allowDomains', { allowDomains: ['*'] }],
  ['network.allowDomains', { allowDomains: ['a.*.example'] }],
  ['network.allowDomains', { allowDomains: ['10.1.2.3'] }],
  ['network.allowDomains', { allowDomains: ['example.org:0'] }],
  ['network.allowDomains', { allowDomains: ['https://example.org'] }],
  ['network.denyDomains', { denyDomains: [''] }],
  ['network.denial', { denial: 'silent' as 'drop' }],
  ['network.allowCidrs', { allowCidrs: ['10.1.2.3/33'] }],
  ['network.allowCidrs', { allowCidrs: ['10.1.2.3/24'] }],
  ['network.allowCidrs', { allowCidrs: ['10.1.2.3:80:90'] }],
  ['network.allowCidrs', { allowCidrs: ['[10.1.2.3]:80'] }],
  ['network.allowCidrs', { allowCidrs: ['fd00::1/64'] }],
  ['network.allowCidrs', { allowCidrs: ['fd00::/129'] }],
  ['network.allowCidrs', { allowCidrs: ['fd00::1%eth0'] }],
  ['network.allowCidrs', { allowCidrs: ['[fd00::1'] }],
  ['network.allowCidrs', { allowCidrs: ['[fd00::1]443'] }],
  ['network.allowCidrs', { allowCidrs: ['[fd00::1]:'] }],
  ['network.allowCidrs', { allowCidrs: ['[fd00::1]:443:80'] }],
  ['network.allowCidrs', { allowCidrs: ['[]:443'] }],
  ['network.allowDomains', { allowDomains: ['fd00::1'] }],
  ['network.allowDomains', { allowDomains: ['[fd00::1]:443'] }],
  ['network.denyCidrs', { denyCidrs: ['[fd00::1]:443'] }],
  ['network.denyCidrs', { denyCidrs: ['fd00::1%1'] }],
  ['network.denyCidrs', { denyCidrs: ['example.org'] }],
  ['network.allowPorts', { allowPorts: ['70000'] }],
  ['network.allowPorts', { allowPorts: ['20-10'] }],
  ['network.allowPorts', { allowPorts: ['80/sctp'] }],
])('refuses %s: %j', (field, o) => {
  expect(() => makePolicy(o)).toThrow(ConfigError);
  expect(() => makePolicy(o)).toThrow(field);
});

describe('what the kernel’s rules have no room for is told before a VM starts', () => {
  const domains = (count: number) => Array.from({ length: count }, (_, i) => `n${i}.example`);
  const cidrs = (count: number) => Array.from({ length: count }, (_, i) => `10.1.${i}.0/24`);
  const ports = (count: number, end = '') =>
    Array.from({ length: count }, (_, i) => 8000 + i + end);

  it.each<[string, EgressOptions]>([
    ['domains', { allowDomains: domains(256) }],
    ['networks that are denied', { denyCidrs: cidrs(85) }],
    ['ports', { allowPorts: [...ports(60), ...ports(64, '/udp')] }],
  ])('as many %s as there may be', (_, o) => {
    expect(() => checkPolicy(makePolicy(o).rules)).not.toThrow();
  });

  it.each<[string, number, EgressOptions]>([
    ['allowDomains', 257, { allowDomains: domains(257) }],
    ['allowDomains', 258, { allowDomains: domains(129), allowPorts: ['443/udp'] }],
    ['denyCidrs', 258, { denyCidrs: cidrs(86) }],
    ['allowCidrs', 200, { allowCidrs: cidrs(200), allowDomains: domains(57) }],
    ['allowPorts', 61, { allowPorts: ports(61) }],
    ['allowPorts', 65, { allowPorts: ports(65, '/udp') }],
  ])('too much of %s: %d', (name, value, o) => {
    const field = `network.${name}`;
    expect(() => makePolicy(o)).toThrow(
      expect.objectContaining({ code: 'ERR_CONFIG', field, value, hint: expect.any(String) }),
    );
  });

  it('with IPv6 the host’s own networks take three rules, of which the user is told', () => {
    const o = { denyCidrs: cidrs(85) };
    expect(() => checkReach(o, { hasIpv6: false })).not.toThrow();
    expect(() => checkReach(o, { hasIpv6: true })).toThrow(
      expect.objectContaining({
        ...{ code: 'ERR_CONFIG', field: 'network.denyCidrs', value: 255 },
        message: expect.stringMatching(/255 of 259 rules.*own networks take 3 more/),
      }),
    );
    expect(() => checkReach({ denyCidrs: cidrs(84) }, { hasIpv6: true })).not.toThrow();
  });

  it.each([
    ...['0.0.0.0/0', '127.0.0.1', '224.0.0.251', '255.255.255.255'],
    ...['::/0', '::1', '::ffff:10.1.2.3', 'fe80::1', 'ff02::/16'],
  ])('%s, which is nowhere outside a VM', (cidr) => {
    const wrong = { code: 'ERR_CONFIG', field: 'network.allowCidrs', value: cidr };
    expect(() => makePolicy({ allowCidrs: [cidr] })).toThrow(expect.objectContaining(wrong));
    expect(() => checkPolicy(makePolicy({ denyCidrs: [cidr] }).rules)).not.toThrow();
  });

  it('but a long name is allowed, and its rule called by its two ends', () => {
    const label = 'abcdefghij'.repeat(6);
    for (const name of [`${label}.${label}.example`, `${'ü'.repeat(50)}.example`]) {
      const { rules, names } = makePolicy({ allowDomains: [name] });
      expect(() => checkPolicy(rules)).not.toThrow();
      expect(rules.rules[0]?.title).toMatch(/^--allow-domain .*\.\.\..*\.example$/);
      expect(names[0]?.pattern).toMatch(/\.example$/);
    }
  });
});

it('a rule of other names is another rule, so that it inherits no address', () => {
  const before = build({ allowDomains: ['a.example', 'b.example', '*.c.example'] });
  const ids = (o: EgressOptions) => makePolicy(o, before).names.map(({ ruleId }) => ruleId);
  expect(before.names.map(({ ruleId }) => ruleId)).toEqual([1, 2, 3]);
  expect(ids({ allowDomains: ['b.example'] })).toEqual([2]);
  expect(ids({ allowDomains: ['d.example', 'b.example'] })).toEqual([4, 2]);
  const allowDomains = ['a.example', 'b.example', '*.c.example'];
  // What a name that is denied now has opened must not stay open; all else is as it was.
  expect(ids({ allowDomains, denyDomains: ['bad.c.example'] })).toEqual([1, 2, 4]);
  expect(ids({ allowDomains, denyDomains: ['*.example'] })).toEqual([4, 5, 6]);
  expect(ids({ allowDomains, denyDomains: ['c.example', 'x.b.example'] })).toEqual([1, 2, 3]);
});

it('networks of the host are none of the public addresses, and open to whom they are allowed', () => {
  const titles = (o: EgressOptions, hasIpv6 = true) =>
    makePolicy(o, undefined, { hasIpv6 }).rules.rules.map((r) => r.title);
  const denied = Array.from({ length: 3 }, () => "the host's own networks"); // tcp, udp, icmp
  expect(titles({})).toEqual([...denied, 'public addresses']);
  expect(titles({ allowCidrs: ['2a00:1::7'] })).toEqual([
    ...['--allow-cidr 2a00:1::7', ...denied, 'public addresses'],
  ]);
  expect(titles({ allowDomains: ['a.example'] })).toEqual(['--allow-domain a.example']);
  expect(titles({}, false)).toEqual(['public addresses']);
});
