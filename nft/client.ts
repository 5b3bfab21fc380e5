/** Applies transactions and reads what is in our tables. */
import { NetworkRulesError } from '../src/errors.ts';
import { baseTable, removeBase } from './base.ts';
import { guardedTaps } from './bridge-guard.ts';
import type { Family, Named, NftTransaction } from './json.ts';
import {
  HOST_NETWORKS,
  inet,
  netdev,
  SCHEMA_CHAIN_PREFIX,
  SCHEMA_VERSION,
  setOfRule,
  TABLE,
} from './names.ts';
import type { LogRates } from './parts.ts';
import {
  chainNames,
  cidrsOf,
  countersByTap,
  findRemains,
  foreignDrops,
  keyText,
  listed,
  parseReply,
  type NftReply,
  type VmCounters,
} from './reply.ts';
import type { VmRemains } from './remove.ts';
import { type NftCallOptions, runNft } from './run.ts';

/** How often a transaction is tried that failed because an element timed out under it. */
const MAX_TRIES = 3;

/** Groups of counters, and the sets that hold them. */
const COUNTER_SETS = {
  /** `sent` and `received`. */
  traffic: [inet('sent'), inet('received')],
  /** `byRule`. */
  rules: [inet('live')],
  /** `denied…` and `logged`. */
  denied: [inet('denied'), inet('logged'), netdev('denied'), netdev('logged')],
} as const;

/** Which counters to read: each set costs a call of nft. */
export type CounterGroup = keyof typeof COUNTER_SETS;

/**
 * nft for one network namespace. Any number of clients, of any number of processes, may work on the same tables: the
 * kernel takes one transaction after the other. Holds nothing between calls.
 */
export class NftClient {
  readonly #command: readonly string[];

  /** @param o.command how to call nft; default `['nft']`. E.g. `['ip', 'netns', 'exec', 'test', 'nft']` */
  constructor(o: { command?: readonly string[] } = {}) {
    this.#command = o.command ?? ['nft'];
  }

  /**
   * All of the commands at one instant, or none.
   *
   * @throws NetworkRulesError (nothing was changed), HostError, TimeoutError (it may have been), the signal's reason
   */
  async apply(transaction: NftTransaction, o: NftCallOptions = {}): Promise<void> {
    if (transaction.length > 0) await this.#run(transaction, o);
  }

  /**
   * As {@link apply}, for `allowAddress`: an address may time out between nft's look at it and the kernel's; then it
   * is tried again.
   */
  async applyTimed(transaction: NftTransaction, o: NftCallOptions = {}): Promise<void> {
    for (let tries = 1; ; tries++) {
      try {
        return await this.apply(transaction, o);
      } catch (error) {
        const isGone = error instanceof NetworkRulesError && error.reason === 'missing';
        if (!isGone || tries === MAX_TRIES) throw error;
      }
    }
  }

  /**
   * Sets up both tables where they are not there.
   * @returns whether they were set up
   * @throws NetworkRulesError also where they are of another version (reason `schema`)
   */
  async ensureBase(o: NftCallOptions & { rates?: Partial<LogRates> } = {}): Promise<boolean> {
    const { rates = {}, ...call } = o;
    if (await this.hasBase(call)) return false;
    const { present } = await this.#baseState(call);
    try {
      await this.apply(baseTable({ ...rates, present }), call);
      return true;
    } catch (error) {
      // Another process may have been faster.
      const lost = error instanceof NetworkRulesError && error.reason === 'exists';
      if (lost && (await this.hasBase(call))) return false;
      throw error;
    }
  }

  /**
   * Whether both tables are there.
   * @throws NetworkRulesError they are of another version (reason `schema`)
   */
  async hasBase(o: NftCallOptions = {}): Promise<boolean> {
    const { present, version } = await this.#baseState(o);
    if (version === undefined || version === SCHEMA_VERSION) return present.length === 2;
    throw new NetworkRulesError(
      `table inet ${TABLE} has version ${version}, not ${SCHEMA_VERSION}`,
      {
        reason: 'schema',
        stderr: '',
        hint: 'stop the VMs of the other version of qmp-agent, then run: qmp-agent setup network --undo',
      },
    );
  }

  /**
   * Chains of others that drop forwarded packets that they do not accept: what we let through they still drop.
   * As `family table chain`.
   */
  async foreignDrops(o: NftCallOptions = {}): Promise<string[]> {
    return foreignDrops(await this.#list({ chains: null }, o));
  }

  /** The guard and the schema chain stand for all that is made in the same transaction. */
  async #baseState(o: NftCallOptions): Promise<{ present: Family[]; version?: number }> {
    const reply = await this.#list({ chains: null }, o);
    const names = chainNames(reply).filter(({ table }) => table === TABLE);
    const schema = names.find(({ name }) => name.startsWith(SCHEMA_CHAIN_PREFIX));
    const present: Family[] = [];
    if (names.some(({ family, name }) => family === 'netdev' && name === 'guard')) {
      present.push('netdev');
    }
    if (schema === undefined) return { present };
    const version = Number(schema.name.slice(SCHEMA_CHAIN_PREFIX.length));
    return { present: [...present, 'inet'], version };
  }

  /** Both tables gone, with all VMs in them; no error where they are gone already. */
  async removeBase(o: NftCallOptions = {}): Promise<void> {
    await this.apply(removeBase(), o);
  }

  /** Taps that have rules. Empty where the tables are not there. */
  async taps(o: NftCallOptions = {}): Promise<string[]> {
    const elements = listed(await this.#list({ map: inet('policies') }, o));
    return elements.get('inet policies')?.map(({ key }) => keyText(key, 0)) ?? [];
  }

  /** What `setHostNetworks` named last; undefined where the table is not there. */
  async hostNetworks(o: NftCallOptions = {}): Promise<string[] | undefined> {
    return cidrsOf(await this.#list({ set: inet(HOST_NETWORKS) }, o));
  }

  /** Taps of VMs on bridges that have a guard. */
  async guardedTaps(o: NftCallOptions = {}): Promise<string[]> {
    return guardedTaps(await this.#list({ chains: null }, o));
  }

  /** What there is of each VM in the tables, for `removeVm`. Lists both tables: some 0.4 s with a thousand VMs. */
  async remains(o: NftCallOptions = {}): Promise<VmRemains[]> {
    const replies = await this.#listAll(
      (['inet', 'netdev'] as const).map((family) => ({ table: { family, name: TABLE } })),
      o,
    );
    return findRemains(replies);
  }

  /**
   * Counters of all VMs by tap. Nothing is reset; they live as long as the VM's rules, those of a rule as
   * long as the rule.
   *
   * @param o.groups which; the others are 0. Default: all
   */
  async counters(
    o: NftCallOptions & { groups?: readonly CounterGroup[] } = {},
  ): Promise<Map<string, VmCounters>> {
    const groups = o.groups ?? (Object.keys(COUNTER_SETS) as CounterGroup[]);
    const sets = groups.flatMap((group): readonly Named[] => COUNTER_SETS[group]);
    return countersByTap(
      listed(
        await this.#listAll(
          sets.map((set) => ({ set })),
          o,
        ),
      ),
    );
  }

  /** Addresses of both families that are open to a VM's dynamic rule. Empty where there is no such rule. */
  async openAddresses(
    rule: { tap: string; ruleId: number },
    o: NftCallOptions = {},
  ): Promise<{ address: string; expiresS: number | undefined }[]> {
    const sets = ([4, 6] as const).map((version) => ({
      set: inet(setOfRule(rule.tap, rule.ruleId, version)),
    }));
    return [...listed(await this.#listAll(sets, o)).values()].flat().map(({ key, expires }) => ({
      address: keyText(key, 0),
      expiresS: expires,
    }));
  }

  /** One call each: nft forgets the first of two lists in one call (1.0.6 and 1.1.3). */
  async #listAll(objects: readonly object[], o: NftCallOptions): Promise<NftReply> {
    const replies = await Promise.all(objects.map((object) => this.#list(object, o)));
    return { nftables: replies.flatMap(({ nftables }) => nftables) };
  }

  /** Nothing where what is asked for is not there. */
  async #list(object: object, o: NftCallOptions): Promise<NftReply> {
    try {
      return parseReply(await this.#run([{ list: object }], o));
    } catch (error) {
      if (error instanceof NetworkRulesError && error.reason === 'missing') return { nftables: [] };
      throw error;
    }
  }

  #run(commands: readonly object[], o: NftCallOptions): Promise<string> {
    return runNft(this.#command, JSON.stringify({ nftables: commands }), o);
  }
}
