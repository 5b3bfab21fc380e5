import { describe, expect, test } from 'vitest';
import {
  addVm,
  allowAddress,
  changePolicy,
  DEFAULT_LIMITS,
  ISOLATED_POLICY,
  remainsOf,
  removeVm,
} from '../../../nft/index.ts';
import { leftOf, lines, linesOf, namedRule, rule, VM, withPolicy } from './sample.ts';

describe('addVm', () => {
  test('with the default policy, by value', () => {
    expect(lines(addVm(VM))).toMatchInlineSnapshot(`
      [
        "create chain netdev in_tap1 {"type":"filter","hook":"ingress","dev":"tap1","prio":-500,"policy":"drop"}",
        "add rule in_tap1 [{"goto":{"target":"guard"}}]",
        "add chain inet out_tap1",
        "add rule out_tap1 [{"match":{"op":"in","left":{"ct":{"key":"state"}},"right":["established"]}},{"match":{"op":"!=","left":{"&":[{"ct":{"key":"mark"}},4294963200]},"right":1895837696}},{"return":null}]",
        "add rule out_tap1 [{"match":{"op":"==","left":{"meta":{"key":"l4proto"}},"right":"tcp"}},{"match":{"op":"==","left":{"ct":{"key":"proto-dst","dir":"original"}},"right":80}},{"mangle":{"key":{"ct":{"key":"mark"}},"value":1895837697}},{"return":null}]",
        "add rule out_tap1 [{"match":{"op":"==","left":{"meta":{"key":"l4proto"}},"right":"tcp"}},{"match":{"op":"==","left":{"ct":{"key":"proto-dst","dir":"original"}},"right":443}},{"mangle":{"key":{"ct":{"key":"mark"}},"value":1895837697}},{"return":null}]",
        "add rule out_tap1 [{"match":{"op":"==","left":{"meta":{"key":"l4proto"}},"right":"tcp"}},{"match":{"op":"==","left":{"ct":{"key":"proto-dst","dir":"original"}},"right":22}},{"mangle":{"key":{"ct":{"key":"mark"}},"value":1895837698}},{"return":null}]",
        "add rule out_tap1 [{"match":{"op":"==","left":{"meta":{"key":"l4proto"}},"right":"tcp"}},{"match":{"op":"==","left":{"ct":{"key":"proto-dst","dir":"original"}},"right":9418}},{"mangle":{"key":{"ct":{"key":"mark"}},"value":1895837698}},{"return":null}]",
        "add element netdev id4 [{"concat":["tap1","02:00:00:00:00:01","10.210.0.2"]}]",
        "add element netdev arpok [{"concat":["tap1","02:00:00:00:00:01","10.210.0.2","10.210.0.1"]}]",
        "add element inet self [{"concat":["tap1","10.210.0.2"]}]",
        "add element inet taps ["tap1"]",
        "add element inet sent ["tap1"]",
        "add element inet received ["tap1"]",
        "add element inet policies [["tap1",{"jump":{"target":"out_tap1"}}]]",
        "add element inet dnsok [{"concat":["tap1","10.210.0.1"]}]",
        "add element inet nat ["10.210.0.2"]",
        "add element inet live [{"concat":["tap1",1895837697]},{"concat":["tap1",1895837698]}]",
      ]
    `);
  });

  test('with all that a policy may have, by value', () => {
    const vm = withPolicy({
      rules: [
        rule(10, { action: 'deny', destination: { kind: 'addresses', cidrs: ['192.0.2.0/24'] } }),
        rule(11, { protocol: 'icmp', ports: [] }),
        rule(12, {
          protocol: 'udp',
          ports: [[1000, 2000], 1500, 53],
          destination: { kind: 'dynamic', of: 'example.org' },
        }),
        rule(13, {
          ports: [1, 3, 5, 7, 9],
          destination: { kind: 'addresses', cidrs: ['10.1.2.3', '10.1.2.4'] },
        }),
      ],
      exceptions: ['10.1.2.0/24'],
      published: [{ id: 20, protocol: 'udp', port: 80 }],
      denial: 'drop',
      limits: {
        newConnectionsPerSecond: 5,
        uploadBytesPerSecond: 2_000_000,
        dnsQueriesPerSecond: 9,
      },
    });
    expect(lines(addVm(vm))).toMatchInlineSnapshot(`
      [
        "create chain netdev in_tap1 {"type":"filter","hook":"ingress","dev":"tap1","prio":-500,"policy":"drop"}",
        "add rule in_tap1 [{"goto":{"target":"guard"}}]",
        "add chain inet out_tap1",
        "add set inet to_tap1_12 {"type":"ipv4_addr","size":4096,"flags":["timeout"]}",
        "add chain inet new_tap1",
        "add rule new_tap1 [{"limit":{"rate":5,"per":"second","burst":10,"inv":true}},{"goto":{"target":"deny_rate"}}]",
        "add rule new_tap1 [{"goto":{"target":"admitted"}}]",
        "add rule out_tap1 [{"match":{"op":"in","left":{"ct":{"key":"state"}},"right":["established"]}},{"match":{"op":"!=","left":{"&":[{"ct":{"key":"mark"}},4294963200]},"right":1895837696}},{"return":null}]",
        "add rule out_tap1 [{"match":{"op":"==","left":{"ct":{"key":"ip daddr","dir":"original"}},"right":"@reserved"}},{"match":{"op":"!=","left":{"ct":{"key":"ip daddr","dir":"original"}},"right":{"set":[{"prefix":{"addr":"10.1.2.0","len":24}}]}}},{"goto":{"target":"deny_reserved"}}]",
        "add rule out_tap1 [{"match":{"op":"==","left":{"meta":{"key":"l4proto"}},"right":"tcp"}},{"match":{"op":"==","left":{"ct":{"key":"proto-dst","dir":"original"}},"right":443}},{"match":{"op":"==","left":{"ct":{"key":"ip daddr","dir":"original"}},"right":{"prefix":{"addr":"192.0.2.0","len":24}}}},{"mangle":{"key":{"meta":{"key":"mark"}},"value":1895837706}},{"goto":{"target":"deny_rule"}}]",
        "add rule out_tap1 [{"match":{"op":"==","left":{"payload":{"protocol":"icmp","field":"type"}},"right":"echo-request"}},{"match":{"op":"!=","left":{"ct":{"key":"ip daddr","dir":"original"}},"right":"@reserved"}},{"mangle":{"key":{"ct":{"key":"mark"}},"value":1895837707}},{"return":null}]",
        "add rule out_tap1 [{"match":{"op":"==","left":{"meta":{"key":"l4proto"}},"right":"udp"}},{"match":{"op":"==","left":{"ct":{"key":"proto-dst","dir":"original"}},"right":53}},{"match":{"op":"==","left":{"ct":{"key":"ip daddr","dir":"original"}},"right":"@to_tap1_12"}},{"mangle":{"key":{"ct":{"key":"mark"}},"value":1895837708}},{"return":null}]",
        "add rule out_tap1 [{"match":{"op":"==","left":{"meta":{"key":"l4proto"}},"right":"udp"}},{"match":{"op":"==","left":{"ct":{"key":"proto-dst","dir":"original"}},"right":{"range":[1000,2000]}}},{"match":{"op":"==","left":{"ct":{"key":"ip daddr","dir":"original"}},"right":"@to_tap1_12"}},{"mangle":{"key":{"ct":{"key":"mark"}},"value":1895837708}},{"return":null}]",
        "add rule out_tap1 [{"match":{"op":"==","left":{"meta":{"key":"l4proto"}},"right":"tcp"}},{"match":{"op":"==","left":{"ct":{"key":"proto-dst","dir":"original"}},"right":{"set":[1,3,5,7,9]}}},{"match":{"op":"==","left":{"ct":{"key":"ip daddr","dir":"original"}},"right":{"set":["10.1.2.3","10.1.2.4"]}}},{"mangle":{"key":{"ct":{"key":"mark"}},"value":1895837709}},{"return":null}]",
        "add limit inet up_tap1 {"rate":2000000,"per":"second","rate_unit":"bytes","burst":500000,"burst_unit":"bytes","inv":true}",
        "add element inet rate_up [["tap1","up_tap1"]]",
        "add limit inet dns_tap1 {"rate":9,"per":"second","burst":18,"inv":true}",
        "add element inet rate_dns [["tap1","dns_tap1"]]",
        "add element netdev id4 [{"concat":["tap1","02:00:00:00:00:01","10.210.0.2"]}]",
        "add element netdev arpok [{"concat":["tap1","02:00:00:00:00:01","10.210.0.2","10.210.0.1"]}]",
        "add element inet self [{"concat":["tap1","10.210.0.2"]}]",
        "add element inet taps ["tap1"]",
        "add element inet sent ["tap1"]",
        "add element inet received ["tap1"]",
        "add element inet policies [["tap1",{"jump":{"target":"out_tap1"}}]]",
        "add element inet dnsok [{"concat":["tap1","10.210.0.1"]}]",
        "add element inet nat ["10.210.0.2"]",
        "add element inet silent ["tap1"]",
        "add element inet excepted ["tap1"]",
        "add element inet owndns ["tap1"]",
        "add element inet ownlimits [["tap1",{"goto":{"target":"new_tap1"}}]]",
        "add element inet live [{"concat":["tap1",1895837707]},{"concat":["tap1",1895837708]},{"concat":["tap1",1895837709]},{"concat":["tap1",1895837716]}]",
        "add element inet inward [[{"concat":["tap1","udp",80]},1895837716]]",
      ]
    `);
  });

  test('a rule for all addresses names none', () => {
    const destination = { kind: 'addresses', cidrs: ['192.0.2.1', '0.0.0.0/0'] } as const;
    const added = addVm(withPolicy({ rules: [rule(1, { destination })] }));
    const [, line] = linesOf(added, 'add rule out_');
    expect(line).not.toContain('daddr');
  });

  test('on a lent tap: in the set by which both tables choose where to log, and nothing else', () => {
    const lent = { ...VM, isLent: true } as const;
    const plain = lines(addVm(VM));
    expect(lines(addVm(lent)).filter((line) => !plain.includes(line))).toEqual([
      'add element netdev lent ["tap1"]',
      'add element inet lent ["tap1"]',
    ]);
    expect(leftOf(lent)).toEqual([]);
    expect(() => changePolicy(VM, lent)).toThrow(/^isLent: /);
  });

  test('isolated: no way out, no resolver, no translation of addresses', () => {
    const all = lines(addVm({ ...VM, policy: ISOLATED_POLICY }));
    expect(all).toContain('add rule out_tap1 [{"goto":{"target":"deny_isolated"}}]');
    expect(all.filter((line) => /live|dnsok| nat /.test(line))).toEqual([]);
  });
});

describe('changePolicy', () => {
  const added = (line: string) => !line.startsWith('add rule') && !line.startsWith('flush chain');

  test('to the same: the chain anew, no element touched', () => {
    expect(lines(changePolicy(VM, VM)).filter(added)).toEqual([]);
  });

  test('touches the marks of what comes and goes only', () => {
    const after = withPolicy({ rules: [VM.policy.rules[0]!, rule(9)] });
    expect(lines(changePolicy(VM, after)).filter(added)).toEqual([
      'delete element inet live [{"concat":["tap1",1895837698]}]',
      'add element inet live [{"concat":["tap1",1895837705]}]',
    ]);
  });

  test('keeps the addresses of a dynamic rule that stays, and drops the set of one that goes', () => {
    const before = withPolicy({ rules: [namedRule(5), namedRule(6)] });
    const after = withPolicy({ rules: [namedRule(5), rule(7)] });
    const all = lines(changePolicy(before, after));
    expect(all).toContain('delete set inet to_tap1_6');
    expect(all.filter((line) => /flush set|delete set inet to_tap1_5/.test(line))).toEqual([]);
    const reset = changePolicy(before, { ...before, generation: 4 });
    expect(linesOf(reset, 'flush set')).toEqual([
      'flush set inet to_tap1_5',
      'flush set inet to_tap1_6',
    ]);
  });

  test('from own bounds to those of all and back', () => {
    const own = withPolicy({ limits: { connections: 5, uploadBytesPerSecond: 1000 } });
    const to = lines(changePolicy(VM, own)).filter(added);
    expect(to).toEqual([
      'add chain inet new_tap1',
      'add limit inet up_tap1 {"rate":1000,"per":"second","rate_unit":"bytes","burst":262144,"burst_unit":"bytes","inv":true}',
      'add element inet rate_up [["tap1","up_tap1"]]',
      'add element inet owndns ["tap1"]',
      'add element inet ownlimits [["tap1",{"goto":{"target":"new_tap1"}}]]',
    ]);
    expect(lines(changePolicy(own, VM)).filter(added)).toEqual([
      'delete element inet rate_up [["tap1","up_tap1"]]',
      'delete limit inet up_tap1',
      'delete element inet owndns ["tap1"]',
      'delete element inet ownlimits [["tap1",{"goto":{"target":"new_tap1"}}]]',
      'delete chain inet new_tap1',
    ]);
  });

  test('leaves the count of connections alone where its bound stays', () => {
    const before = withPolicy({ limits: { connections: 5 } });
    const after = withPolicy({ rules: [rule(9)] }, before);
    expect(lines(changePolicy(before, after)).join('\n')).not.toContain('new_tap1');
  });

  test('refuses another machine, and another rule under an id that was used', () => {
    expect(() => changePolicy(VM, { ...VM, mac: '02:00:00:00:00:09' })).toThrow(/^mac: /);
    const changed = withPolicy({ rules: [rule(1, { ports: [80] })] });
    expect(() => changePolicy(VM, changed)).toThrow(/^policy\.rules\[0\]\.id: 1 was another rule/);
    const port = (number: number) =>
      withPolicy({ published: [{ id: 8, protocol: 'tcp', port: number }] });
    expect(() => changePolicy(port(80), port(81))).toThrow(/^policy\.published\[0\]\.id: 8/);
    expect(() => changePolicy(VM, { ...changed, generation: 4 })).not.toThrow();
    const renamed = withPolicy({ rules: [{ ...VM.policy.rules[0]!, title: 'another' }] });
    expect(() => changePolicy(VM, renamed)).not.toThrow();
  });
});

describe('allowAddress', () => {
  test('by value', () => {
    const o = { tap: 'tap1', ruleId: 7, addresses: ['192.0.2.1', '192.0.2.1'], ttlS: 60 };
    expect(lines(allowAddress(o))).toEqual([
      'add element inet to_tap1_7 [{"elem":{"val":"192.0.2.1","timeout":60}}]',
      'delete element inet to_tap1_7 ["192.0.2.1"]',
      'add element inet to_tap1_7 [{"elem":{"val":"192.0.2.1","timeout":60}}]',
    ]);
  });

  test.each([
    ['ttlS', { ttlS: 0 }],
    ['ttlS', { ttlS: 86_401 }],
    ['addresses[0]', { addresses: ['::1/128'] }],
    ['addresses.length', { addresses: [] }],
    ['ruleId', { ruleId: 0 }],
    ['tap', { tap: 'x y' }],
  ])('refuses a bad %s', (field, o) => {
    const good = { tap: 'tap1', ruleId: 7, addresses: ['192.0.2.1'], ttlS: 60 };
    expect(() => allowAddress({ ...good, ...o })).toThrow(`${field}: `);
  });
});

describe('removeVm', () => {
  test('undoes all that addVm adds', () => {
    const vm = withPolicy({
      rules: [namedRule(12), rule(13, { action: 'deny' })],
      published: [{ id: 20, protocol: 'udp', port: 80 }],
      exceptions: ['10.1.2.3'],
      denial: 'drop',
      limits: { ...DEFAULT_LIMITS, downloadBytesPerSecond: 1000, connections: 3 },
    });
    expect(leftOf(vm)).toEqual([]);
  });

  test('adds each thing before it deletes it: nothing of it need be there', () => {
    const all = lines(removeVm(remainsOf(VM)));
    for (const line of all.filter((one) => one.startsWith('delete element'))) {
      const at = all.indexOf(line.replace(/^delete/, 'add'));
      expect(at).toBeGreaterThanOrEqual(0);
      expect(at).toBeLessThan(all.indexOf(line));
    }
  });
});
