/** Ids for rules, so that a rule that has changed is another rule. */
import { isDeepStrictEqual } from 'node:util';
import { fail } from './check.ts';
import { MAX_RULE_ID } from './marks.ts';
import type { EgressRule, PublishedPort } from './policy.ts';

/** A rule before it has its id. */
export type RuleDraft = Omit<EgressRule, 'id'>;
/** A port before it has its id. */
export type PortDraft = Omit<PublishedPort, 'id'>;

/**
 * Gives ids: to what is as it was before, that which it had; to all else, new ones.
 *
 * @param o.lastId the largest id that the VM has had in its generation; 0 at first
 * @returns also the new `lastId`, to be kept with the VM
 * @throws NetworkPolicyError all ids are used up: the VM needs a new generation
 */
export function numberRules(
  wanted: { rules: readonly RuleDraft[]; published: readonly PortDraft[] },
  o: {
    before: { rules: readonly EgressRule[]; published: readonly PublishedPort[] };
    lastId: number;
  },
): { rules: EgressRule[]; published: PublishedPort[]; lastId: number } {
  let { lastId } = o;
  const used = new Set<number>();
  const number = <D extends object>(draft: D, known: readonly (D & { id: number })[]) => {
    const same = known.find((old) => !used.has(old.id) && isSame(old, draft));
    if (same === undefined && lastId >= MAX_RULE_ID) {
      fail(
        'policy.rules',
        lastId,
        'is the last id of a rule',
        'give the VM a new generation, and number from 1',
      );
    }
    const id = same?.id ?? ++lastId;
    used.add(id);
    return { ...draft, id };
  };
  return {
    rules: wanted.rules.map((draft) => number(draft, o.before.rules)),
    published: wanted.published.map((draft) => number(draft, o.before.published)),
    lastId,
  };
}

/** Titles are for people: a rule that is called otherwise is still the same. */
function isSame(one: object, other: object): boolean {
  const bare = (some: object) => ({ ...some, id: 0, title: '' });
  return isDeepStrictEqual(bare(one), bare(other));
}
