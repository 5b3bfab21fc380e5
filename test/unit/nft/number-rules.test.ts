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

  test('of two rules that are the same are two', () => {
    const before = { rules: [rule(4)], published: [] };
    const made = numberRules({ rules: [draft(), draft()], published: [] }, { before, lastId: 4 });
    expect(made.rules.map(({ id }) => id)).toEqual([4, 5]);
  });
});
