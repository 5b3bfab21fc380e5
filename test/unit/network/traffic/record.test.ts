import { describe, expect, it } from 'vitest';
import { denyPrefix, ruleMark, type DenialCause } from '../../../../nft/marks.ts';
import { makePolicy, type EgressOptions } from '../../../../src/network/policy.ts';
import type { IpPacket } from '../../../../src/network/traffic/nflog.ts';
import { recordOf } from '../../../../src/network/traffic/record.ts';

const V6 = '2606:4700::10';

function denied(
  cause: DenialCause,
  packet: Partial<IpPacket> = {},
  egress: EgressOptions = {},
  name?: string,
  hasIpv6?: boolean,
  title?: string,
) {
  const made = makePolicy(egress, undefined, { hasIpv6 });
  const titled = made.rules.rules.map((rule) => ({ ...rule, title: title ?? rule.title }));
  const policy = { ...made, rules: { ...made.rules, rules: titled } };
  const network = {
    ...{ tap: 'qmpa1', mac: '02:00:00:00:00:01', generation: 1, policy: policy.rules },
    ...{ guestAddress: '10.210.0.3', gatewayAddress: '10.210.0.2' },
  };
  const entry = { vmId: 'a', network, policy, egress, published: [], logPath: '' };
  const whole = {
    protocol: 'tcp',
    from: 'fd12::3',
    fromPort: 50_000,
    to: V6,
    toPort: 443,
    ...packet,
  };
  const logged = {
    ...{ timeMs: 0, prefix: denyPrefix(cause), inDevice: 1, outDevice: 0, packet: whole },
    mark: cause === 'rule' ? ruleMark(1, policy.rules.rules[0]!.id) : 0,
  };
  return recordOf(logged, entry, () => name);
}

describe('what would allow a denied address of IPv6', () => {
  const named = { allowDomains: ['a.example'] };
  it.each<[string, DenialCause, Partial<IpPacket>, EgressOptions, string | undefined]>([
    ['a port', 'policy', { toPort: 8080 }, {}, '--allow-port 8080'],
    ['a port of UDP', 'policy', { protocol: 'udp' }, {}, '--allow-port 443/udp'],
    ['an address', 'policy', {}, named, `--allow-cidr [${V6}]:443`],
    ['and UDP', 'policy', { protocol: 'udp' }, named, `--allow-cidr ${V6} --allow-port 443/udp`],
    ['a private one', 'reserved', { to: 'fd99::1' }, {}, '--allow-cidr [fd99::1]:443'],
    ['ping', 'policy', { protocol: 'icmpv6', toPort: undefined }, {}, undefined],
    ['IPv6 at all', 'ipv6', {}, {}, '--ipv6'],
    ['IPv6 to private networks', 'ipv6', { to: 'fd99::1' }, {}, '--ipv6'],
    ['nothing, of a group', 'ipv6', { to: 'ff02::16' }, {}, undefined],
    ['nothing, of a link', 'ipv6', { to: 'fe80::1' }, {}, undefined],
  ])('%s: %s %j', (_, cause, packet, egress, remedy) => {
    expect(denied(cause, packet, egress)?.remedy).toBe(remedy);
  });

  it('is the address, where the host’s own network is shut, and no flag is to be left out', () => {
    expect(denied('rule', {}, {}, undefined, true)).toMatchObject({
      ...{ rule: "the host's own networks", remedy: `--allow-cidr [${V6}]:443` },
    });
  });

  it('is told by what the denying rule is, whatever it is called', () => {
    const titled = (egress: EgressOptions, hasIpv6: boolean, title: string) =>
      denied('rule', {}, egress, undefined, hasIpv6, title)?.remedy;
    const cidr = '2606:4700::/64';
    expect(titled({}, true, 'a neighbour')).toBe(`--allow-cidr [${V6}]:443`);
    expect(titled({ denyCidrs: [cidr] }, false, "the host's own networks")).toContain(
      '--deny-cidr',
    );
  });

  it('is its name, where the VM has asked for it', () => {
    expect(denied('policy', {}, named, 'b.example')).toMatchObject({
      ...{ kind: 'denied', name: 'b.example', remedy: '--allow-domain b.example:443' },
      ...{ from: 'fd12::3', to: V6, cause: 'policy' },
    });
  });

  it('and what is told can be given back as a flag', () => {
    for (const to of [V6, 'fd99::1', '10.1.2.3']) {
      const remedy = denied('reserved', { to })?.remedy ?? '';
      const { rules } = makePolicy({ allowCidrs: [remedy.replace('--allow-cidr ', '')] });
      expect(rules.rules[0]).toMatchObject({ ports: [443], destination: { cidrs: [to] } });
    }
  });
});
