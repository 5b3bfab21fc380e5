import { describe, expect, test } from 'vitest';
import { numberRules } from '../../../nft/index.ts';
import { rule } from './sample.ts';

const draft = (o: Parameters<typeof rule>[1] = {}) => {
  const { id: _id, ...rest } = rule(1, o);
  return rest;
};
const none = { rules: [], published: [] };

describe('ids of rules', () => {
  test('begin at 1, published ports included', () => {
    const made = numberRules(
      { rules: [draft(), draft({ ports: [80] })], published: [{ protocol: 'tcp', port: 80 }] },
      { before: none, lastId: 0 },
    );
    expect(made.rules.map(({ id }) => id)).toEqual([1, 2]);
    expect(made.published.map(({ id }) => id)).toEqual([3]);
    expect(made.lastId).toBe(3);
  });

  test('stay with a rule that is the same, under another title too', () => {
    const before = { rules: [rule(4), rule(5, { ports: [80] })], published: [] };
    const wanted = {
      rules: [draft({ ports: [80], title: 'web' }), draft({ ports: [22] })],
      published: [],
    };
    const made = numberRules(wanted, { before, lastId: 7 });
    expect(made.rules.map(({ id, title }) => [id, title])).toEqual([
      [5, 'web'],
      [8, 'rule 1'],
    ]);
  });

  test('are never given again', () => {
    const made = numberRules({ rules: [draft()], published: [] }, { before: none, lastId: 9 });
    expect(made.rules[0]!.id).toBe(10);
    const wanted = { rules: [draft()], published: [] };
    expect(() => numberRules(wanted, { before: none, lastId: 4095 })).toThrow(/last id/);
  });

  test('are new to what is denied in part by now, so that what is open is asked about again', () => {
    const deny = (cidr: string, o: Parameters<typeof rule>[1] = {}) =>
      draft({ action: 'deny', ports: [], destination: { kind: 'addresses', cidrs: [cidr] }, ...o });
    const web = draft();
    const lan = draft({ destination: { kind: 'addresses', cidrs: ['10.1.0.0/16', 'fd00::1'] } });
    const named = draft({ destination: { kind: 'dynamic', of: 'example.org' } });
    const allowing = [lan, named, web];
    const numbered = (
      rules: Parameters<typeof numberRules>[0]['rules'],
      before: ReturnType<typeof numberRules>,
    ) => numberRules({ rules, published: [] }, { before, lastId: before.lastId });
    const ids = ({ rules }: ReturnType<typeof numberRules>) => rules.map(({ id }) => id);
    const first = numberRules({ rules: allowing, published: [] }, { before: none, lastId: 0 });
    expect(ids(first)).toEqual([1, 2, 3]);
    const second = numbered([deny('10.2.0.0/16'), ...allowing], first);
    expect(ids(second)).toEqual([4, 1, 2, 5]);
    const third = numbered([deny('10.2.0.0/16'), deny('fd00::/64'), ...allowing], second);
    expect(ids(third)).toEqual([4, 6, 7, 2, 8]);
    expect(ids(numbered([deny('fd00::/64'), ...allowing], third))).toEqual([6, 7, 2, 8]);
    expect(ids(numbered([...allowing, deny('10.3.0.0/16')], third))).toEqual([7, 2, 8, 9]);
    const ofUdp = deny('10.1.2.3', { protocol: 'udp' });
    expect(ids(numbered([ofUdp, ...allowing], first))).toEqual([4, 1, 2, 3]);
  });

  test('of two rules that are the same are two', () => {
    const before = { rules: [rule(4)], published: [] };
    const made = numberRules({ rules: [draft(), draft()], published: [] }, { before, lastId: 4 });
    expect(made.rules.map(({ id }) => id)).toEqual([4, 5]);
  });
});
