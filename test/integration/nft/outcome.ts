/** What became of a packet of a VM, by its log and its counters. */
import { expect } from 'vitest';
import type { DenialCause } from '../../../nft/index.ts';
import type { TestNetwork } from './network.ts';

/** Let through or denied by a rule, denied for a cause, or neither logged nor counted. */
export type Outcome = { allow: number } | { deny: DenialCause | number } | 'unlogged';

/** Denied packets by cause or rule. */
export type Denied = ReadonlyMap<string | number, number>;

export async function deniedCounts(net: TestNetwork, tap = 'tvm1'): Promise<Denied> {
  const counters = (await net.client.counters({ groups: ['denied'] })).get(tap);
  return new Map<string | number, number>([
    ...[...(counters?.deniedByCause ?? [])].map(
      ([cause, { packets }]) => [cause, packets] as const,
    ),
    ...[...(counters?.deniedByRule ?? [])].map(([id, { packets }]) => [id, packets] as const),
  ]);
}

/** @param before the counters as they were before the packet */
export async function expectOutcome(
  net: TestNetwork,
  outcome: Outcome,
  before: Denied,
  tap = 'tvm1',
): Promise<void> {
  // Inward come the ends of connections of the cases before, which a change of the policy has cut.
  const logs = (await net.logs(outcome === 'unlogged' ? {} : { waitS: 5 })).filter(
    (entry) => entry.tap === tap && !('cause' in entry && entry.cause === 'inward'),
  );
  const after = await deniedCounts(net, tap);
  const grown = [...after].filter(
    ([key, count]) => key !== 'inward' && count > (before.get(key) ?? 0),
  );
  const seen = new Set(logs.map((entry) => JSON.stringify(entry)));
  if (outcome === 'unlogged') {
    expect([...seen]).toEqual([]);
    expect(grown).toEqual([]);
  } else if ('allow' in outcome) {
    const { allow: ruleId } = outcome;
    expect([...seen]).toEqual([JSON.stringify({ verdict: 'allow', ruleId, tap })]);
    expect(grown).toEqual([]);
  } else {
    const { deny } = outcome;
    const expected =
      typeof deny === 'number'
        ? { verdict: 'deny', cause: 'rule', ruleId: deny, tap }
        : { verdict: 'deny', cause: deny, tap };
    expect([...seen]).toEqual([JSON.stringify(expected)]);
    expect(grown.map(([key]) => key)).toEqual([deny]);
  }
}
