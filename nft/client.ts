/** Applies transactions and reads what is in our tables. */
import { NetworkRulesError } from '../src/errors.ts';
import { baseTable, removeBase } from './base.ts';
import type { Family, NftTransaction } from './json.ts';
import { inet, netdev, SCHEMA_CHAIN_PREFIX, SCHEMA_VERSION, setOfRule, TABLE } from './names.ts';
import type { LogRates } from './parts.ts';
import {
  chainNames,
  countersByTap,
  findRemains,
  keyText,
  listed,
  type NftReply,
  type VmCounters,
} from './reply.ts';
import type { VmRemains } from './remove.ts';
import { type NftCallOptions, runNft } from './run.ts';

/** How often a transaction is tried that failed because an element timed out under it. */
const MAX_TRIES = 3;

/** Sets that hold counters. */
const COUNTER_SETS = [
  inet('sent'),
  inet('received'),
  inet('live'),
  inet('denied'),
  inet('logged'),
  netdev('denied'),
  netdev('logged'),
];

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

  /** The guard and the schema chain stand for all that is made in the same transaction. */
  async #baseState(o: NftCallOptions): Promise<{ present: Family[]; version?: number }> {
    const chains = (['inet', 'netdev'] as const).map((family) => ({
      list: { chains: { family } },
    }));
    const names = chainNames(await this.#list(chains, o)).filter(({ table }) => table === TABLE);
    const schema = names.find(({ name }) => name.startsWith(SCHEMA_CHAIN_PREFIX));
    const present: Family[] = [];
    if (names.some(({ family, name }) => family === 'netdev' && name === 'guard')) {
      present.push('netdev');
    }
    if (schema === undefined) return { present };
    return {
      present: [...present, 'inet'],
      version: Number(schema.name.slice(SCHEMA_CHAIN_PREFIX.length)),
    };
  }

  /** Both tables gone, with all VMs in them; no error where they are gone already. */
  async removeBase(o: NftCallOptions = {}): Promise<void> {
    await this.apply(removeBase(), o);
  }

  /** Taps that have rules. Empty where the tables are not there. */
  async taps(o: NftCallOptions = {}): Promise<string[]> {
    const elements = await this.#elements([{ list: { map: inet('policy') } }], o);
    return elements.get('inet policy')?.map(({ key }) => keyText(key, 0)) ?? [];
  }

  /** What there is of each VM in the tables, for `removeVm`. Lists both tables: some 0.1 s with a thousand VMs. */
  async remains(o: NftCallOptions = {}): Promise<VmRemains[]> {
    const tables = (['inet', 'netdev'] as const).map((family) => ({
      list: { table: { family, name: TABLE } },
    }));
    return findRemains(await this.#list(tables, o));
  }

  /**
   * Counters of all VMs by tap, or of one. Reads the sets of counters as they are; nothing is reset.
   */
  async counters(o: NftCallOptions & { tap?: string } = {}): Promise<Map<string, VmCounters>> {
    const elements = await this.#elements(
      COUNTER_SETS.map((set) => ({ list: { set } })),
      o,
    );
    const all = countersByTap(elements);
    if (o.tap === undefined) return all;
    const one = all.get(o.tap);
    return new Map(one === undefined ? [] : [[o.tap, one]]);
  }

  /** Addresses that are open to a VM's dynamic rule. Empty where there is no such rule. */
  async openAddresses(
    set: { tap: string; ruleId: number },
    o: NftCallOptions = {},
  ): Promise<{ address: string; expiresS: number | undefined }[]> {
    const name = inet(setOfRule(set.tap, set.ruleId));
    const elements = await this.#elements([{ list: { set: name } }], o);
    return (elements.get(`inet ${name.name}`) ?? []).map(({ key, expires }) => ({
      address: keyText(key, 0),
      expiresS: expires,
    }));
  }

  async #elements(commands: readonly object[], o: NftCallOptions) {
    return listed(await this.#list(commands, o));
  }

  /** Nothing where what is asked for is not there. */
  async #list(commands: readonly object[], o: NftCallOptions): Promise<NftReply> {
    try {
      return JSON.parse(await this.#run(commands, o)) as NftReply;
    } catch (error) {
      if (error instanceof NetworkRulesError && error.reason === 'missing') return { nftables: [] };
      throw error;
    }
  }

  #run(commands: readonly object[], o: NftCallOptions): Promise<string> {
    return runNft(this.#command, JSON.stringify({ nftables: commands }), o);
  }
}
