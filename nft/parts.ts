/** Pieces that several tables and chains are made of. */
import { type IpVersion, withoutNested } from './address.ts';
import {
  type ChainObject,
  concat,
  type Expression,
  type Family,
  is,
  isNot,
  MARK,
  type Named,
  type NftCommand,
  put,
  type SetObject,
  type Statement,
} from './json.ts';
import { causeMark, type DenialCause, denyPrefix } from './marks.ts';
import { LENT_LOG_GROUP, LOG_GROUP, TABLE } from './names.ts';

/** Bytes of a packet that go into a log: all headers, and no more of what was said than that. */
const LOG_SNAPLEN = 96;

/** How much one VM may log. All is counted; what is not logged is `denied` minus `logged`. */
export interface LogRates {
  readonly deniedPerSecond: number;
  readonly deniedBurst: number;
  readonly allowedPerSecond: number;
  readonly allowedBurst: number;
}

/** Adds rules to chains of one of our tables. */
export function ruleIn(family: Family): (chain: string, ...expr: Statement[]) => NftCommand {
  return (chain, ...expr) => ({ add: { rule: { family, table: TABLE, chain, expr } } });
}

export const addSet = (set: SetObject): NftCommand => ({ add: { set } });
export const addMap = (map: SetObject & { map: string }): NftCommand => ({ add: { map } });
export const addChain = (chain: ChainObject): NftCommand => ({ add: { chain } });
export const flushChain = (chain: Named): NftCommand => ({ flush: { chain } });
export const deleteChain = (chain: Named): NftCommand => ({ delete: { chain } });
export const addElements = (set: Named, elem: readonly Expression[]): NftCommand => ({
  add: { element: { ...set, elem } },
});
export const deleteElements = (set: Named, elem: readonly Expression[]): NftCommand => ({
  delete: { element: { ...set, elem } },
});

/**
 * Deletes elements that may not be there. Deleting one that is not aborts a transaction, adding one that is
 * does not.
 */
export const discardElements = (set: Named, elem: readonly Expression[]): NftCommand[] =>
  elem.length === 0 ? [] : [addElements(set, elem), deleteElements(set, elem)];

/** CIDRs of one family as elements of an interval set. */
export function cidrElements(cidrs: readonly string[], version: IpVersion = 4): Expression[] {
  return withoutNested(cidrs, version).map(({ address, length }) =>
    length === (version === 4 ? 32 : 128) ? address : { prefix: { addr: address, len: length } },
  );
}

/** How a packet is logged. */
export interface LogOptions {
  readonly prefix: string;
  /** The interface of the VM. */
  readonly key: Expression;
  /** Each VM's own: it matches as long as the VM has not logged enough. */
  readonly budget: Statement;
  /** Default: nothing. */
  readonly before?: readonly Statement[];
  readonly after?: readonly Statement[];
}

/**
 * Two rules that log a packet, as a statement has one group: of a lent tap to the one, of any other tap to the other. Whoever
 * reads a group takes each packet as it comes.
 */
export function logRules({
  prefix,
  key,
  budget,
  before = [],
  after = [],
}: LogOptions): Statement[][] {
  const logTo = (group: number): Statement => ({
    log: { prefix, group, snaplen: LOG_SNAPLEN, 'queue-threshold': 1 },
  });
  return [
    [...before, is(key, '@lent'), budget, logTo(LENT_LOG_GROUP), ...after],
    [isNot(key, '@lent'), budget, logTo(LOG_GROUP), ...after],
  ];
}

/**
 * Marks the packet with its cause, for the counter behind, and logs it unless its VM has logged enough.
 * @param key the interface of the VM
 */
export function logDenied(cause: DenialCause, key: Expression, rates: LogRates): Statement[][] {
  return logRules({
    prefix: denyPrefix(cause),
    key,
    budget: within('logq', key, rates.deniedPerSecond, rates.deniedBurst),
    // With the cause `rule` the mark is the rule's already.
    before: cause === 'rule' ? [] : [put(MARK, causeMark(cause))],
    after: [{ set: { op: 'update', elem: key, set: '@logged', stmt: [{ counter: null }] } }],
  });
}

/** At most so many times a second, counted for each interface. */
export function within(set: string, elem: Expression, rate: number, burst: number): Statement {
  return limited(set, elem, { rate, burst });
}

/** More often than so many times a second, counted for each interface. */
export function over(set: string, elem: Expression, rate: number, burst = rate): Statement {
  return limited(set, elem, { rate, burst, inv: true });
}

function limited(
  set: string,
  elem: Expression,
  { rate, ...more }: { rate: number; burst: number; inv?: true },
): Statement {
  const limit = { rate, per: 'second', ...more } as const;
  return { set: { op: 'update', elem, set: `@${set}`, stmt: [{ limit }] } };
}

/** Counts the packet with its VM and its cause. */
export const countDenied = (key: Expression): Statement => ({
  set: { op: 'update', elem: concat(key, MARK), set: '@denied', stmt: [{ counter: null }] },
});
