/**
 * The part of libnftables-json(5) that the rules are written in, and short names for its expressions.
 * Only what nft 1.0.6 (Debian 12) and 1.1.3 (Debian 13) both read: the former knows no `destroy`, and no
 * flag `dynamic` (it sets it by itself where a rule updates the set).
 */

/** Families of our two tables. */
export type Family = 'inet' | 'netdev';

/** A value of an element, or an operand of a comparison. */
export type Expression =
  | string
  | number
  | readonly Expression[]
  | { readonly meta: { readonly key: string } }
  | { readonly ct: { readonly key: string; readonly dir?: 'original' | 'reply' } }
  | { readonly payload: { readonly protocol: string; readonly field: string } }
  | { readonly prefix: { readonly addr: string; readonly len: number } }
  | { readonly range: readonly [number, number] }
  | { readonly concat: readonly Expression[] }
  | { readonly set: readonly Expression[] }
  | { readonly '&': readonly [Expression, Expression] }
  | { readonly map: { readonly key: Expression; readonly data: string } }
  | { readonly elem: { readonly val: Expression; readonly timeout: number } }
  | Verdict;

/** Where a packet goes on. */
export type Verdict =
  | { readonly accept: null }
  | { readonly drop: null }
  | { readonly return: null }
  | { readonly goto: { readonly target: string } }
  | { readonly jump: { readonly target: string } };

/** A rate; `inv`: matches what is over it. */
export interface Rate {
  readonly rate: number;
  readonly per: 'second';
  readonly burst: number;
  readonly rate_unit?: 'bytes';
  readonly burst_unit?: 'bytes';
  readonly inv?: true;
}

/** One part of a rule. */
export type Statement =
  | {
      readonly match: {
        readonly op: '==' | '!=' | 'in' | '<';
        readonly left: Expression;
        readonly right: Expression;
      };
    }
  | { readonly mangle: { readonly key: Expression; readonly value: Expression } }
  | { readonly limit: Rate | { readonly map: { readonly key: Expression; readonly data: string } } }
  | { readonly 'ct count': { readonly val: number; readonly inv: true } }
  | {
      readonly set: {
        readonly op: 'add' | 'update';
        readonly elem: Expression;
        readonly set: string;
        readonly stmt: readonly Statement[];
      };
    }
  | {
      readonly log: {
        readonly prefix: string;
        readonly group: number;
        readonly snaplen: number;
        readonly 'queue-threshold': number;
      };
    }
  | { readonly reject: { readonly type: 'tcp reset' | 'icmpx'; readonly expr?: string } }
  | { readonly vmap: { readonly key: Expression; readonly data: string } }
  | { readonly counter: null }
  | { readonly notrack: null }
  | { readonly masquerade: null }
  | Verdict;

/** A table's name within an object that lies in it. */
interface InTable {
  readonly family: Family;
  readonly table: string;
}
/** An object with a name within a table. */
export interface Named extends InTable {
  readonly name: string;
}
/** A set or, with `map`, a map. */
export interface SetObject extends Named {
  readonly type: string | readonly string[];
  readonly map?: string;
  readonly size?: number;
  readonly flags?: readonly ('interval' | 'timeout')[];
  /** Seconds. */
  readonly timeout?: number;
  readonly elem?: readonly Expression[];
  /** For each element. */
  readonly stmt?: readonly Statement[];
}
/** A chain; one with a hook is a base chain. */
export interface ChainObject extends Named {
  readonly type?: 'filter' | 'nat';
  readonly hook?: 'ingress' | 'prerouting' | 'input' | 'forward' | 'output' | 'postrouting';
  readonly prio?: number;
  readonly policy?: 'accept' | 'drop';
  readonly dev?: string;
}
/** A rule; its place is behind those that are there. */
export interface RuleObject extends InTable {
  readonly chain: string;
  readonly expr: readonly Statement[];
  readonly comment?: string;
}
/** Elements of a set or a map; a map's are pairs. */
export interface ElementObject extends Named {
  readonly elem: readonly Expression[];
}
/** A rate that several rules may name. */
export type LimitObject = Named & Rate;

/** What a command is about. */
export type NftObject =
  | { readonly table: { readonly family: Family; readonly name: string } }
  | { readonly set: SetObject }
  | { readonly set: Named }
  | { readonly map: SetObject }
  | { readonly map: Named }
  | { readonly chain: ChainObject }
  | { readonly rule: RuleObject }
  | { readonly element: ElementObject }
  | { readonly limit: LimitObject }
  | { readonly limit: Named };

/** One command. */
export type NftCommand =
  | { readonly add: NftObject }
  /** As `add`, and an error where it is there already. */
  | { readonly create: { readonly chain: ChainObject } }
  | { readonly delete: NftObject }
  | { readonly flush: { readonly chain: Named } | { readonly set: Named } };

/** Commands that the kernel takes all, at one instant, or not at all. */
export type NftTransaction = readonly NftCommand[];

/** A key of a packet's own facts, e.g. `iifname`. */
export const meta = (key: string): Expression => ({ meta: { key } });
/** A fact of the packet's connection. */
export const ct = (key: string, dir?: 'original' | 'reply'): Expression => ({
  ct: dir === undefined ? { key } : { key, dir },
});
/** A field of a header. */
export const field = (protocol: string, name: string): Expression => ({
  payload: { protocol, field: name },
});
/** Several values as one key. */
export const concat = (...parts: Expression[]): Expression => ({ concat: parts });
/** `left == right`; with a set's `@name`: is in it. */
export const is = (left: Expression, right: Expression): Statement => ({
  match: { op: '==', left, right },
});
/** `left != right`; with a set's `@name`: is not in it. */
export const isNot = (left: Expression, right: Expression): Statement => ({
  match: { op: '!=', left, right },
});
/** One of some flags or states. */
export const hasAny = (left: Expression, ...right: string[]): Statement => ({
  match: { op: 'in', left, right },
});
/** Goes to a chain for good. */
export const goto = (target: string): Verdict => ({ goto: { target } });
/** Goes to a chain, and comes back where it does not decide. */
export const jump = (target: string): Verdict => ({ jump: { target } });
export const ACCEPT: Verdict = { accept: null };
export const DROP: Verdict = { drop: null };
export const RETURN: Verdict = { return: null };
/** Sets a mark of the packet or of its connection. */
export const put = (key: Expression, value: Expression): Statement => ({ mangle: { key, value } });

export const IIF = meta('iifname');
export const OIF = meta('oifname');
export const L4 = meta('l4proto');
export const NFPROTO = meta('nfproto');
export const STATE = ct('state');
export const DIRECTION = ct('direction');
export const CT_MARK = ct('mark');
export const MARK = meta('mark');
