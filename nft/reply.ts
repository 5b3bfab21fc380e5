/** What nft answers, read. Nothing here fails on what it does not know: other versions of nft say more. */
import type { Expression, Family, Named } from './json.ts';
import { type DenialCause, readMark } from './marks.ts';
import { TABLE, VM_LIMITS, limitOf, type VmLimit } from './names.ts';
import type { VmRemains } from './remove.ts';

/** The answer as a whole: one object for each table, chain, set, rule, … */
export interface NftReply {
  readonly nftables: readonly Readonly<Record<string, unknown>>[];
}

/** nft writes nothing at all where a list is empty. */
export function parseReply(output: string): NftReply {
  return output.trim() === '' ? { nftables: [] } : (JSON.parse(output) as NftReply);
}

/** Packets, and bytes of their IP headers and all behind. */
export interface Count {
  readonly packets: number;
  readonly bytes: number;
}

/** Of one VM. */
export interface VmCounters {
  /** Let through from the VM, DNS to its gateway not included. */
  readonly sent: Count;
  /** Let through to the VM, from others than the host. */
  readonly received: Count;
  /** By rule id, both ways: what passed as part of a connection after its first packet. */
  readonly byRule: ReadonlyMap<number, Count>;
  /** Denied packets by cause; those that a rule denied by its id. */
  readonly deniedByCause: ReadonlyMap<DenialCause, Count>;
  readonly deniedByRule: ReadonlyMap<number, Count>;
  /** All that was denied, and what of it was logged; the difference was not. */
  readonly denied: Count;
  readonly logged: Count;
}

/** An element as it was listed. */
interface Element {
  readonly key: Expression;
  /** Of a map. */
  readonly value?: Expression;
  readonly count: Count | undefined;
  /** Seconds until it times out. */
  readonly expires: number | undefined;
}

/** Elements by `family name` of their set or map. */
type Listed = ReadonlyMap<string, readonly Element[]>;

type Facts = Readonly<Record<string, unknown>>;

function objects(reply: NftReply, kind: string): Facts[] {
  return reply.nftables.flatMap((object) => (kind in object ? [object[kind] as Facts] : []));
}

const text = (value: unknown): string => (typeof value === 'string' ? value : '');

/** Chains by table. */
export function chainNames(reply: NftReply): Named[] {
  return objects(reply, 'chain').map(({ family, table, name }) => ({
    family: text(family) as Family,
    table: text(table),
    name: text(name),
  }));
}

/** Chains of others that drop forwarded packets that they do not accept, as `family table chain`. */
export function foreignDrops(reply: NftReply): string[] {
  return objects(reply, 'chain')
    .filter(({ hook, policy, table }) => hook === 'forward' && policy === 'drop' && table !== TABLE)
    .map(({ family, table, name }) => [family, table, name].map(text).join(' '));
}

/** Elements of the one set of an answer, where they are addresses and networks; undefined where there is none. */
export function cidrsOf(reply: NftReply): string[] | undefined {
  const [set] = objects(reply, 'set');
  if (set === undefined) return undefined;
  const elem = (set['elem'] ?? []) as (string | { prefix: { addr: string; len: number } })[];
  return elem.map((one) =>
    typeof one === 'string' ? one : `${one.prefix.addr}/${one.prefix.len}`,
  );
}

/** Elements of all sets and maps of an answer. */
export function listed(reply: NftReply): Listed {
  const all = new Map<string, readonly Element[]>();
  for (const [kind, isMap] of [
    ['set', false],
    ['map', true],
  ] as const) {
    for (const { family, table, name, elem } of objects(reply, kind)) {
      if (table !== TABLE || !Array.isArray(elem)) continue;
      all.set(
        `${text(family)} ${text(name)}`,
        elem.map((one: unknown) => readElement(one, isMap)),
      );
    }
  }
  return all;
}

/** `key`, `[key, value]`, and either may be wrapped: `{ elem: { val, counter, expires } }`. */
function readElement(raw: unknown, isMap: boolean): Element {
  const [outer, value] = isMap && Array.isArray(raw) ? (raw as unknown[]) : [raw];
  const elem = (outer as { elem?: Facts } | null)?.elem;
  const key = (elem === undefined ? outer : elem['val']) as Expression;
  const expires = elem?.['expires'];
  return {
    key,
    ...(value === undefined ? {} : { value: value as Expression }),
    count: elem === undefined ? undefined : readCount(elem['counter']),
    expires: typeof expires === 'number' ? expires : undefined,
  };
}

function readCount(counter: unknown): Count | undefined {
  const { packets, bytes } = (counter ?? {}) as Partial<Count>;
  return packets === undefined || bytes === undefined ? undefined : { packets, bytes };
}

function keyParts(key: Expression): readonly Expression[] {
  return isConcat(key) ? key.concat : [key];
}

function isConcat(key: Expression): key is { readonly concat: readonly Expression[] } {
  return typeof key === 'object' && Object.hasOwn(key, 'concat');
}

/** Part of a key as text. */
export function keyText(key: Expression, part: number): string {
  const value = keyParts(key)[part];
  return typeof value === 'string' ? value : '';
}

const NOTHING: Count = { packets: 0, bytes: 0 };
const sum = (one: Count, other: Count): Count => ({
  packets: one.packets + other.packets,
  bytes: one.bytes + other.bytes,
});

/** Counters of all taps that occur. */
export function countersByTap(elements: Listed): Map<string, VmCounters> {
  const taps = new Map<string, MutableCounters>();
  for (const [set, list] of elements) {
    for (const { key, count } of list) {
      const tap = keyText(key, 0);
      if (tap === '' || count === undefined) continue;
      const counters = taps.get(tap) ?? emptyCounters();
      taps.set(tap, counters);
      note(counters, set.split(' ')[1]!, Number(keyParts(key)[1]), count);
    }
  }
  return taps;
}

interface MutableCounters extends VmCounters {
  sent: Count;
  received: Count;
  denied: Count;
  logged: Count;
  byRule: Map<number, Count>;
  deniedByCause: Map<DenialCause, Count>;
  deniedByRule: Map<number, Count>;
}

function emptyCounters(): MutableCounters {
  return {
    sent: NOTHING,
    received: NOTHING,
    denied: NOTHING,
    logged: NOTHING,
    byRule: new Map(),
    deniedByCause: new Map(),
    deniedByRule: new Map(),
  };
}

function note(counters: MutableCounters, set: string, mark: number, count: Count): void {
  if (set === 'sent' || set === 'received' || set === 'logged') {
    counters[set] = sum(counters[set], count);
    return;
  }
  const meaning = readMark(mark);
  if (set === 'denied') counters.denied = sum(counters.denied, count);
  if (meaning === undefined) return;
  if (meaning.kind === 'cause') {
    const { deniedByCause } = counters;
    deniedByCause.set(meaning.cause, sum(deniedByCause.get(meaning.cause) ?? NOTHING, count));
    return;
  }
  const byRule = set === 'denied' ? counters.deniedByRule : counters.byRule;
  byRule.set(meaning.ruleId, sum(byRule.get(meaning.ruleId) ?? NOTHING, count));
}

/** Sets and maps whose keys begin with the tap's name; budgets that time out by themselves are not among them. */
const KEYED_BY_TAP = new Set([
  ...[
    'taps',
    'lent',
    'silent',
    'excepted',
    'owndns',
    'self',
    'dnsok',
    'live',
    'sent',
    'received',
  ].map((name) => `inet ${name}`),
  ...['self6', 'gateway6', 'public6'].map((name) => `inet ${name}`),
  ...['denied', 'logged', 'conns', 'dnsconns', 'inward', 'ownlimits', 'policies'].map(
    (name) => `inet ${name}`,
  ),
  ...['id4', 'id6', 'v6', 'lent', 'arpok', 'denied', 'logged'].map((name) => `netdev ${name}`),
]);

/** What there is of each VM in an answer that lists both tables. */
export function findRemains(reply: NftReply): VmRemains[] {
  const sets = listed(reply);
  const elements = elementsByTap(sets);
  const dynamic = dynamicIds(reply, /^to_(.+)_(\d+)$/);
  const dynamic6 = dynamicIds(reply, /^to6_(.+)_(\d+)$/);
  const limits = new Set(objects(reply, 'limit').map(({ name }) => text(name)));
  const taps = new Set([...elements.keys(), ...dynamic.keys(), ...dynamic6.keys()]);
  for (const { name } of chainNames(reply)) {
    const tap = /^(?:out|new|in)_(.+)$/.exec(name)?.[1];
    if (tap !== undefined) taps.add(tap);
  }
  return [...taps].sort().map((tap) => ({
    tap,
    elements: [...(elements.get(tap) ?? [])].map(([key, elem]) => ({ set: setNamed(key), elem })),
    dynamicRuleIds: dynamic.get(tap) ?? [],
    dynamicRuleIds6: dynamic6.get(tap) ?? [],
    limits: VM_LIMITS.filter((kind: VmLimit) => limits.has(limitOf(tap, kind))),
  }));
}

/** Ids of rules that have a set of such a name, by tap. */
function dynamicIds(reply: NftReply, pattern: RegExp): Map<string, number[]> {
  const ids = new Map<string, number[]>();
  for (const { name } of objects(reply, 'set')) {
    const [, tap = '', id] = pattern.exec(text(name)) ?? [];
    if (id !== undefined) ids.set(tap, [...(ids.get(tap) ?? []), Number(id)]);
  }
  return ids;
}

function setNamed(key: string): Named {
  const [family, name] = key.split(' ') as [Family, string];
  return { family, table: TABLE, name };
}

/** Elements of each tap, by set. */
function elementsByTap(sets: Listed): Map<string, Map<string, Expression[]>> {
  const tapOfAddress = new Map(
    ['inet self', 'inet self6']
      .flatMap((name) => sets.get(name) ?? [])
      .map(({ key }) => [keyText(key, 1), keyText(key, 0)] as const),
  );
  const byTap = new Map<string, Map<string, Expression[]>>();
  for (const [set, list] of sets) {
    const isNat = set === 'inet nat' || set === 'inet nat6';
    if (!isNat && !KEYED_BY_TAP.has(set)) continue;
    for (const { key, value } of list) {
      const tap = isNat ? tapOfAddress.get(keyText(key, 0)) : keyText(key, 0);
      if (tap === undefined) continue;
      const ofTap = byTap.get(tap) ?? new Map<string, Expression[]>();
      byTap.set(tap, ofTap);
      const elem = ofTap.get(set) ?? [];
      ofTap.set(set, elem);
      elem.push(value === undefined ? key : [key, value]);
    }
  }
  return byTap;
}
