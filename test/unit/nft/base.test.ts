import { describe, expect, test } from 'vitest';
import {
  baseTable,
  LENT_LOG_GROUP,
  LOG_GROUP,
  type NftTransaction,
  removeBase,
} from '../../../nft/index.ts';
import { GUARD_MARK, MARK_BASE, MARK_MASK } from '../../../nft/marks.ts';
import { addVm } from '../../../nft/vm.ts';
import { VM } from './sample.ts';

const objects = (transaction: NftTransaction, kind: string) =>
  transaction.flatMap((command) => {
    const object = 'add' in command ? (command.add as Record<string, unknown>) : {};
    return kind in object ? [object[kind] as { family: string; name: string; expr?: unknown }] : [];
  });

const names = (transaction: NftTransaction, ...kinds: string[]) =>
  new Set(kinds.flatMap((kind) => objects(transaction, kind).map((o) => `${o.family} ${o.name}`)));

describe('the base', () => {
  const base = baseTable();
  const all = [...base, ...addVm(VM)];

  test('has every chain and set that a rule names', () => {
    const chains = names(all, 'chain');
    const sets = names(all, 'set', 'map');
    for (const { family, expr } of objects(all, 'rule')) {
      const text = JSON.stringify(expr);
      for (const [, target] of text.matchAll(/"target":"([^"]+)"/g)) {
        expect(chains).toContain(`${family} ${target}`);
      }
      for (const [, set] of text.matchAll(/"@([^"]+)"/g))
        expect(sets).toContain(`${family} ${set}`);
    }
  });

  test('names every chain that it has, but for those with a hook, and those of other policies', () => {
    const text = JSON.stringify(all);
    const unnamed = objects(base, 'chain')
      .filter((chain) => !('hook' in chain) && !text.includes(`"target":"${chain.name}"`))
      .map(({ name }) => name);
    expect(unnamed).toEqual(['schema_6', 'deny_isolated', 'deny_rule']);
  });

  test('leaves the sets of a table that is there alone', () => {
    expect(names(baseTable({ present: ['inet', 'netdev'] }), 'set', 'map', 'table')).toEqual(
      new Set(),
    );
    expect([...names(baseTable({ present: ['inet'] }), 'table')]).toEqual(['netdev qmp_agent']);
  });

  test('uses nothing that nft 1.0.6 does not read', () => {
    expect(JSON.stringify(all)).not.toMatch(/"destroy"|"dynamic"/);
  });

  test('says of ARP what passes, and never what does not: half a frame would fit no rule', () => {
    const rules = objects(base, 'rule').map((o) => o as { chain?: string; expr?: unknown });
    const arp = rules.filter(({ chain }) => chain === 'guard_arp');
    expect(arp).toHaveLength(2);
    expect(JSON.stringify(arp[0])).toContain('guard_arp_rate');
    expect(JSON.stringify(arp[0])).not.toContain('!=');
    expect(arp[1]!.expr).toEqual([{ goto: { target: 'deny_arp' } }]);
  });

  test('lets nothing of IPv6 pass but what it names twice: in its header, and as the kernel finds it', () => {
    const rules = objects(base, 'rule').map((o) => ({ ...o, text: JSON.stringify(o.expr) }));
    const guard6 = rules.filter((o) => (o as { chain?: string }).chain === 'guard6');
    expect(guard6[0]!.text).toContain('deny_ipv6');
    const accepting = guard6.filter(({ text }) => text.includes('accept'));
    expect(accepting).toHaveLength(3);
    for (const { text } of accepting) {
      expect(text).toMatch(/"nexthdr"\}\},"right":"([a-z0-9-]+)".*"l4proto"\}\},"right":"\1"/);
    }
    expect(guard6.at(-1)!.expr).toEqual([{ goto: { target: 'deny_protocol' } }]);
  });

  test('gives its own mark only to what both tables have seen', () => {
    const marking = objects(base, 'rule')
      .map((o) => ({ ...o, text: JSON.stringify(o.expr) }))
      .filter(({ text }) => text.includes(`${GUARD_MARK}`));
    // One of IPv4, and of IPv6 one for each protocol.
    expect(marking.map(({ family }) => family)).toEqual([
      ...Array<string>(4).fill('netdev'),
      'inet',
    ]);
    for (const { text } of marking.slice(0, 4)) expect(text).toContain(`"value":${GUARD_MARK}`);
    expect(marking[4]!.text).toContain(`"value":${MARK_BASE}`);
    expect((GUARD_MARK & MARK_MASK) >>> 0).toBe(0);
  });

  test('denies redirects before the kernel can drop them unlogged', () => {
    const early = objects(base, 'rule').filter(
      (o) =>
        (o as { chain?: string }).chain === 'raw_pre' && JSON.stringify(o).includes('redirect'),
    );
    expect(early).toHaveLength(1);
    expect(JSON.stringify(early[0])).toContain('"target":"deny_related"');
  });

  test('logs each packet to one group: what is of a lent tap to its own', () => {
    const logging = objects(base, 'rule').flatMap((o) => {
      const { chain } = o as { chain?: string };
      const text = JSON.stringify(o.expr);
      const [, prefix, group] = /"prefix":"([^"]+)","group":(\d+)/.exec(text) ?? [];
      if (group === undefined) return [];
      const [, op, key] =
        /"op":"(..)","left":\{"meta":\{"key":"(.ifname)"\}\},"right":"@lent"/.exec(text) ?? [];
      return [{ place: `${o.family} ${chain} ${prefix} ${key}`, how: `${op} ${group}` }];
    });
    const places = new Set(logging.map(({ place }) => place));
    expect(places.size).toBeGreaterThan(25);
    for (const one of places) {
      expect(one).toContain('ifname');
      const ways = logging.flatMap(({ place, how }) => (place === one ? [how] : []));
      expect(ways).toEqual([`== ${LENT_LOG_GROUP}`, `!= ${LOG_GROUP}`]);
    }
  });

  test('takes rates of logs', () => {
    expect(JSON.stringify(baseTable({ deniedPerSecond: 77 }))).toContain('"rate":77');
    expect(() => baseTable({ deniedPerSecond: 0 })).toThrow(/^deniedPerSecond: 0/);
  });

  test('goes with both tables, there or not', () => {
    expect(removeBase().map((command) => Object.keys(command)[0])).toEqual([
      'add',
      'delete',
      'add',
      'delete',
    ]);
  });
});
