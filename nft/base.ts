/** The two tables as such: set up once per host (or network namespace), gone with the last VM or by hand. */
import { checkInteger } from './check.ts';
import { filterChains, filterSets } from './filter.ts';
import { guardChains, guardSets } from './guard.ts';
import type { Family, NftTransaction } from './json.ts';
import { inet, netdev } from './names.ts';
import type { LogRates } from './parts.ts';

/** Where nothing else is said. */
export const DEFAULT_LOG_RATES: LogRates = {
  deniedPerSecond: 5,
  deniedBurst: 20,
  allowedPerSecond: 500,
  allowedBurst: 1000,
};

/** How both tables are to be set up. */
export interface BaseOptions extends Partial<LogRates> {
  /**
   * Tables that are there already. Their sets, and so their VMs and counters, stay as they are; nft 1.0.6
   * has no way to say "as it is" of a set that rules update. Default: none.
   */
  readonly present?: readonly Family[];
}

/**
 * Both tables with all that the VMs share. May be applied with VMs present: chains are written anew in one instant.
 * Of two processes that set up a table at once, the second fails with reason `exists`, and finds all done.
 *
 * @param o how much each VM may log
 * @throws NetworkPolicyError
 */
export function baseTable(o: BaseOptions = {}): NftTransaction {
  const { present = [], ...rates } = o;
  const all = { ...DEFAULT_LOG_RATES, ...rates };
  for (const [name, value] of Object.entries(all)) checkInteger(name, value, 1, 100_000);
  return [
    ...(present.includes('netdev') ? [] : guardSets()),
    ...guardChains(all),
    ...(present.includes('inet') ? [] : filterSets()),
    ...filterChains(all),
  ];
}

/** Both tables gone, with all VMs in them. The taps must be gone, or down, before. */
export function removeBase(): NftTransaction {
  const tables = [netdev(''), inet('')];
  return tables.flatMap(({ family, table: name }) => [
    { add: { table: { family, name } } },
    { delete: { table: { family, name } } },
  ]);
}
