/** A VM with IPv6, by value; and one without, whose policy names addresses of IPv6. */
import { describe, expect, test } from 'vitest';
import {
  addVm,
  allowAddress,
  changePolicy,
  type EgressDestination,
  ISOLATED_POLICY,
  type NetworkPolicy,
  setHostNetworks,
  type VmNetwork,
} from '../../../nft/index.ts';
import { leftOf, lines, linesOf, namedRule, rule, VM, VM6, withPolicy } from './sample.ts';

const addresses = (...cidrs: string[]) => ({ kind: 'addresses', cidrs }) as const;

/** What the rules of the policy ask for and do, without what they have in common. */
function policyLines(vm: VmNetwork): string[] {
  return linesOf(addVm(vm), 'add rule out_tap1')
    .slice(1)
    .map((line) =>
      line
        .replace('add rule out_tap1 ', '')
        .replaceAll(/\{"match":\{"op":"(==|!=)","left":(.*?),"right":(.*?)\}\}(?=,\{)/g, '$2 $1 $3')
        .replaceAll(/\{"(?:ct|meta|payload)":\{"(?:key|protocol)":"([^"]+)"[^}]*\}\}/g, '$1'),
    );
}
const ruled = (destination: EgressDestination, o: Parameters<typeof rule>[1] = {}) => ({
  rules: [rule(1, { destination, ...o })],
});
const both = (policy: Partial<NetworkPolicy>) =>
  [VM, VM6].map((vm) => policyLines(withPolicy(policy, vm)));

describe('addVm', () => {
  test('adds some elements, and no rule, to what a VM without IPv6 has', () => {
    const [four, six] = [lines(addVm(VM)), lines(addVm(VM6))];
    expect(four.filter((line) => !six.includes(line))).toEqual([]);
    expect(six.filter((line) => !four.includes(line))).toEqual([
      'add element netdev id6 [{"concat":["tap1","02:00:00:00:00:01","fd00::3"]}]',
      'add element netdev v6 ["tap1"]',
      'add element inet self6 [{"concat":["tap1","fd00::3"]}]',
      'add element inet gateway6 [{"concat":["tap1","fd00::2"]}]',
      'add element inet nat6 ["fd00::3"]',
      'add element inet public6 [{"concat":["tap1",1895837697]},{"concat":["tap1",1895837698]}]',
    ]);
  });

  test('isolated: nothing to ping, no translation of addresses', () => {
    const all = lines(addVm({ ...VM6, policy: ISOLATED_POLICY }));
    expect(all).toContain('add rule out_tap1 [{"goto":{"target":"deny_isolated"}}]');
    expect(all.filter((line) => /nat6|gateway6/.test(line))).toEqual([]);
  });

  test('names of a dynamic rule have a set for each family', () => {
    const vm = withPolicy({ rules: [namedRule(1)] }, VM6);
    expect(linesOf(addVm(vm), 'add set')).toEqual([
      'add set inet to_tap1_1 {"type":"ipv4_addr","size":4096,"flags":["timeout"]}',
      'add set inet to6_tap1_1 {"type":"ipv6_addr","size":4096,"flags":["timeout"]}',
    ]);
    const rules = policyLines(vm);
    expect(rules).toHaveLength(2);
    expect(rules[0]).toContain('ip daddr == "@to_tap1_1"');
    expect(rules[1]).toContain('ip6 daddr == "@to6_tap1_1"');
  });
});

describe('rules of the host’s own networks', () => {
  test('are of IPv6 alone, and take an open connection from under the rule that had let it in', () => {
    const denied = rule(4, { action: 'deny', ports: [], destination: { kind: 'host-networks' } });
    const [four, six] = both({ rules: [denied] });
    expect(four).toEqual([]);
    expect(six).toHaveLength(1);
    expect(six![0]).toContain('ip6 daddr == "@hostnets6"');
    const vm = withPolicy({ rules: [denied] }, VM6);
    expect(linesOf(addVm(vm), 'add rule out_tap1').at(-1)).toContain(
      '{"mangle":{"key":{"ct":{"key":"mark"}},"value":1895837700}}',
    );
  });

  test('know which connections are asked about again: those of rules for public addresses', () => {
    const vm = withPolicy(
      { rules: [rule(5), rule(6, { destination: addresses('2a00::1') }), namedRule(7)] },
      VM6,
    );
    const asked = ['add element inet public6 [{"concat":["tap1",1895837701]}]'];
    expect(linesOf(addVm(vm), 'add element inet public6')).toEqual(asked);
    expect(leftOf(vm)).toEqual([]);
    const none = changePolicy(vm, withPolicy({ rules: [] }, VM6));
    expect(linesOf(none, 'delete element inet public6')).toHaveLength(1);
  });

  test('are told which those are by one transaction, none within another', () => {
    expect(lines(setHostNetworks(['2a00:1::/64', '2a00:1::7', '2a00:2::5']))).toEqual([
      'flush set inet hostnets6',
      'add element inet hostnets6 [{"prefix":{"addr":"2a00:1::","len":64}},"2a00:2::5"]',
    ]);
    expect(lines(setHostNetworks([]))).toEqual(['flush set inet hostnets6']);
  });
});

describe('rules that name addresses', () => {
  test('of one family are for that family', () => {
    const [four, six] = both(ruled(addresses('192.0.2.0/24')));
    expect(four).toHaveLength(1);
    expect(six).toEqual(four);
    const [none, own] = both(ruled(addresses('2001:db8::/32', '2001:db8::1')));
    // No rule at all, which is not the same as one for all addresses.
    expect(none).toEqual([]);
    expect(own).toHaveLength(1);
    expect(own![0]).toContain('ip6 daddr == {"prefix":{"addr":"2001:db8::","len":32}}');
  });

  test('of both are a rule for each', () => {
    const [four, six] = both(ruled(addresses('2001:db8::1', '192.0.2.1')));
    expect(four).toHaveLength(1);
    expect(six!.map((line) => /ip6? daddr == "[^"]+"/.exec(line)?.[0])).toEqual([
      'ip daddr == "192.0.2.1"',
      'ip6 daddr == "2001:db8::1"',
    ]);
  });

  test('all of one family are all of that family only', () => {
    expect(both(ruled(addresses('0.0.0.0/0')))).toEqual([
      [expect.not.stringContaining('nfproto')],
      [expect.stringContaining('nfproto == "ipv4"')],
    ]);
    expect(both(ruled(addresses('::/0', '192.0.2.1')))).toEqual([
      [expect.stringContaining('ip daddr == "192.0.2.1"')],
      [
        expect.stringContaining('ip daddr == "192.0.2.1"'),
        expect.stringContaining('nfproto == "ipv6"'),
      ],
    ]);
    expect(both(ruled(addresses('::/0')))[0]).toEqual([]);
  });

  test('all of both are one rule', () => {
    const [four, six] = both(ruled(addresses('::/0', '0.0.0.0/0')));
    expect(six).toEqual(four);
    expect(six).toEqual([expect.not.stringMatching(/daddr|nfproto/)]);
  });

  test('many become a set of each family', () => {
    const many = Array.from({ length: 9 }, (_, index) => [
      `192.0.2.${index * 2}`,
      `fd01:${index}::/32`,
    ]);
    const [, six] = both({ ...ruled(addresses(...many.flat())), exceptions: [] });
    expect(six).toHaveLength(2);
    expect(six![0]).toContain('ip daddr == {"set":["192.0.2.0",');
    expect(six![1]).toContain('ip6 daddr == {"set":[{"prefix":{"addr":"fd01:0::","len":32');
  });
});

describe('rules for public addresses', () => {
  test('are one for both families', () => {
    const [four, six] = both(ruled({ kind: 'public' }));
    expect(six).toEqual(four);
  });

  test('but ping is each family its own', () => {
    const [four, six] = both(ruled({ kind: 'public' }, { protocol: 'icmp', ports: [] }));
    expect(four).toEqual([expect.stringContaining('icmp == "echo-request"')]);
    expect(six).toEqual([
      expect.stringContaining('icmp == "echo-request"'),
      expect.stringContaining('icmpv6 == "echo-request"'),
    ]);
  });

  test('with an exception of one family leave out what is reserved of both', () => {
    const excepted = (vm: VmNetwork) =>
      lines(addVm(vm)).filter((line) => line.includes('excepted'));
    for (const exception of ['10.1.2.3', 'fd12::/16']) {
      const vm = withPolicy({ ...ruled({ kind: 'public' }), exceptions: [exception] }, VM6);
      const rules = policyLines(vm);
      expect(rules).toHaveLength(4);
      expect(rules[0]).toMatch(/^\[ip daddr == "@reserved"/);
      expect(rules[1]).toMatch(/^\[ip6 daddr == "@reserved6"/);
      expect(rules.filter((line) => line.includes('"set"'))).toEqual([
        rules[exception === '10.1.2.3' ? 0 : 1],
      ]);
      expect(rules[2]).toContain('ip daddr != "@reserved"');
      expect(rules[3]).toContain('ip6 daddr != "@reserved6"');
      expect(excepted(vm)).toEqual(['add element inet excepted ["tap1"]']);
    }
    // Of a family that it does not have, a VM needs no exceptions.
    expect(excepted(withPolicy({ exceptions: ['fd12::/16'] }))).toEqual([]);
    expect(both({ ...ruled({ kind: 'public' }), exceptions: ['fd12::/16'] })[0]).toEqual(
      both(ruled({ kind: 'public' }))[0],
    );
  });
});

describe('changePolicy', () => {
  test('refuses a VM that has other addresses, or has IPv6 all of a sudden', () => {
    expect(() => changePolicy(VM, VM6)).toThrow(/^v6: /);
    expect(() => changePolicy(VM6, VM)).toThrow(/^v6: /);
    const other = { ...VM6, v6: { ...VM6.v6!, guestAddress: 'fd00::5' } };
    expect(() => changePolicy(VM6, other)).toThrow(/^v6: /);
    expect(() => changePolicy(VM6, { ...VM6, v6: { ...VM6.v6! } })).not.toThrow();
  });

  test('to isolated and back takes what is open away, and brings it again', () => {
    const isolated = { ...VM6, policy: ISOLATED_POLICY };
    const touched = (from: VmNetwork, to: VmNetwork) =>
      lines(changePolicy(from, to)).filter((line) => /(nat|gateway)6/.test(line));
    const elements = [
      'element inet gateway6 [{"concat":["tap1","fd00::2"]}]',
      'element inet nat6 ["fd00::3"]',
    ];
    expect(touched(VM6, isolated)).toEqual(elements.map((line) => `delete ${line}`));
    expect(touched(isolated, VM6)).toEqual(elements.map((line) => `add ${line}`));
  });

  test('drops both sets of names that go, and empties both in another generation', () => {
    const before = withPolicy({ rules: [namedRule(5)] }, VM6);
    const gone = changePolicy(before, withPolicy({ rules: [] }, VM6));
    expect(linesOf(gone, 'delete set')).toEqual([
      'delete set inet to_tap1_5',
      'delete set inet to6_tap1_5',
    ]);
    const reset = changePolicy(before, { ...before, generation: 4 });
    expect(linesOf(reset, 'flush set')).toEqual([
      'flush set inet to_tap1_5',
      'flush set inet to6_tap1_5',
    ]);
  });
});

test('allowAddress puts each address where its family is', () => {
  const o = { tap: 'tap1', ruleId: 7, addresses: ['2001:db8::1', '192.0.2.1'], ttlS: 60 };
  expect(lines(allowAddress(o))).toEqual([
    'add element inet to_tap1_7 [{"elem":{"val":"192.0.2.1","timeout":60}}]',
    'delete element inet to_tap1_7 ["192.0.2.1"]',
    'add element inet to_tap1_7 [{"elem":{"val":"192.0.2.1","timeout":60}}]',
    'add element inet to6_tap1_7 [{"elem":{"val":"2001:db8::1","timeout":60}}]',
    'delete element inet to6_tap1_7 ["2001:db8::1"]',
    'add element inet to6_tap1_7 [{"elem":{"val":"2001:db8::1","timeout":60}}]',
  ]);
});

test('removeVm undoes all that addVm adds', () => {
  const vm = withPolicy({ rules: [namedRule(12)], exceptions: ['fd12::1'] }, VM6);
  expect(leftOf(vm)).toEqual([]);
});
