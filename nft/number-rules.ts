/** Ids for rules, so that a rule that has changed is another rule. */
import { isDeepStrictEqual } from 'node:util';
import { firstMeeting } from './address.ts';
import { fail } from './check.ts';
import { MAX_RULE_ID } from './marks.ts';
import type { EgressDestination, EgressRule, PublishedPort } from './policy.ts';

/** A rule before it has its id. */
export type RuleDraft = Omit<EgressRule, 'id'>;
/** A port before it has its id. */
export type PortDraft = Omit<PublishedPort, 'id'>;

/**
 * Gives ids: to what is as it was before, that which it had; to all else, new ones. A rule that allows is not as it was
 * where one before it denies a part of that by now: with another id, its connections are asked about again, and those that
 * are denied are cut. (One of names keeps its id: else all that was opened by name would be shut until it is looked up
 * again. What it had let in stays.)
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
  const number = <D extends object>(
    draft: D,
    known: readonly (D & { id: number })[],
    isAsBefore: (old: D & { id: number }) => boolean = () => true,
  ) => {
    const same = known.find((old) => !used.has(old.id) && isSame(old, draft) && isAsBefore(old));
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
    rules: wanted.rules.map((draft, index) =>
      number(draft, o.before.rules, (old) => {
        const denials = denialsWithin(draft, wanted.rules.slice(0, index));
        const known = o.before.rules.slice(0, o.before.rules.indexOf(old));
        return denials.every((denial) => known.some((one) => isSame(one, denial)));
      }),
    ),
    published: wanted.published.map((draft) => number(draft, o.before.published)),
    lastId,
  };
}

/** Of rules before one that allows, those that deny a part of it. */
function denialsWithin(rule: RuleDraft, before: readonly RuleDraft[]): RuleDraft[] {
  const { action, protocol, destination } = rule;
  if (action === 'deny' || destination.kind === 'dynamic') return [];
  return before.filter(
    (one) =>
      one.action === 'deny' && one.protocol === protocol && mayMeet(one.destination, destination),
  );
}

function mayMeet(one: EgressDestination, other: EgressDestination): boolean {
  if (one.kind !== 'addresses' || other.kind !== 'addresses') return true;
  return one.cidrs.some((cidr) => firstMeeting(cidr, other.cidrs) !== undefined);
}

/** Titles are for people: a rule that is called otherwise is still the same. */
function isSame(one: object, other: object): boolean {
  const bare = (some: object) => ({ ...some, id: 0, title: '' });
  return isDeepStrictEqual(bare(one), bare(other));
}
