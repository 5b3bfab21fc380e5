/**
 * Lends taps to users who may not make any: part of the network service of {@link LENT_DIR}, which root has started.
 * Who asks is known by the socket on which he asks, and what he gets is always the same: the default policy. With
 * each loan the tap is made anew, with rules and a generation of its own, so that nothing is inherited, not by a process
 * either that still has the one before open; without a loan it has no rules and is down.
 *
 * Who asks may mean harm: to all others, he can do no more than have them wait for one request of his, and what he says
 * is an id that has to be one of a loan of his own.
 */
import { randomBytes } from 'node:crypto';
import { chmod, chown, mkdir, readdir, rm } from 'node:fs/promises';
import { createServer, type Server, type Socket } from 'node:net';
import { join } from 'node:path';
import { changePolicy, NftClient, type VmNetwork } from '../../../nft/index.ts';
import { QmpAgentError } from '../../errors.ts';
import { addRules, rebuildRules, removeLeft } from '../attach.ts';
import { readEntries, readEntry, removeEntry, writeEntry, type NetworkEntry } from '../entry.ts';
import { nextGeneration, withHostNetwork } from '../host-dir.ts';
import { ipBatch } from '../ip-command.ts';
import { makePolicy } from '../policy.ts';
import { interfaces, lookAtTap, raiseTap } from '../tap.ts';
import { hearCaller } from './caller.ts';
import { loanLogPath, noteEnd, removeEnded, sweepLogs, userOfEnded } from './ended-logs.ts';
import { FairQueue } from './fair-queue.ts';
import {
  isOpened,
  LENT_DIR,
  lentMac,
  lentTaps,
  remakeLentTap,
  userOf,
  type LentTap,
} from './lent-taps.ts';
import { isForUse, lenderSocket, LOAN_ID_BYTES, type LoanReply, type LoanRequest } from './loan.ts';

/** It looks at its taps this often: which there are, and which are open. */
const LOOK_MS = 2_000;
/** One look of so many is for rules, too. */
const LOOKS_A_MEND = 3;
/** A VM's QEMU opens its tap within this time, or the tap is lent to another. */
const OPEN_MS = 120_000;
/** Of one user, at a time. */
const MAX_CALLERS = 64;
/** Between two requests of one user. */
const PACE_MS = 50;

/** How one is to be. */
export interface LenderOptions {
  /** Has the service see to a loan's names. @returns `ok`, or why it cannot */
  readonly serve: (id: string) => Promise<string>;
  /** Resolves when all is in the logs of these loans that has been logged so far; their taps are down. In a bounded time. */
  readonly settle: (ids: readonly string[]) => Promise<void>;
  /** For what goes wrong. */
  readonly say: (text: string) => void;
}

/** See above. */
export class TapLender implements AsyncDisposable {
  readonly #o: LenderOptions;
  readonly #servers = new Map<number, Server>();
  /** When a loan that nobody has opened yet was given, `performance.now()`. */
  readonly #waiting = new Map<string, number>();
  readonly #opened = new Set<string>();
  #timer: NodeJS.Timeout | undefined;
  /** No tap is given to two. */
  readonly #queue = new FairQueue(PACE_MS);
  readonly #say = (error: unknown): void =>
    this.#o.say(`taps: ${error instanceof Error ? error.message : String(error)}`);
  #looks = 0;
  /** Who has taps, as of the last look. */
  #users: ReadonlySet<number> = new Set();
  #hasTaps = true;
  #isOver = false;

  private constructor(o: LenderOptions) {
    this.#o = o;
  }

  /** Listens to each user that has taps. */
  static async start(o: LenderOptions): Promise<TapLender> {
    // Users may open what they know the name of.
    await mkdir(LENT_DIR, { recursive: true });
    await chmod(LENT_DIR, 0o711);
    for (const name of await readdir(LENT_DIR)) {
      if (name.startsWith('uid-')) await rm(join(LENT_DIR, name), { force: true }); // of one that died
    }
    const lender = new TapLender(o);
    await lender.#queue.run(() => lender.#look());
    lender.#lookLater();
    return lender;
  }

  /** Whether there are taps to lend, as of the last look. */
  get isNeeded(): boolean {
    return this.#hasTaps;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#isOver = true;
    clearTimeout(this.#timer);
    for (const uid of [...this.#servers.keys()]) await this.#ignoreUser(uid);
    await this.#queue.close();
  }

  #lookLater(): void {
    this.#timer = setTimeout(() => {
      void this.#queue
        .run(() => this.#look())
        .catch(this.#say)
        .finally(() => {
          if (!this.#isOver) this.#lookLater();
        });
    }, LOOK_MS);
  }

  /** What goes wrong with one user's is not to be in the way of all others. */
  async #look(): Promise<void> {
    const taps = await lentTaps();
    this.#hasTaps = taps.length > 0;
    const users = new Set(taps.map(({ uid }) => uid));
    this.#users = users;
    for (const uid of users)
      if (!this.#servers.has(uid)) await this.#listenTo(uid).catch(this.#say);
    for (const uid of this.#servers.keys()) if (!users.has(uid)) await this.#ignoreUser(uid);
    const ended: NetworkEntry[] = [];
    for (const entry of await readEntries(LENT_DIR))
      if (await this.#hasEnded(entry)) ended.push(entry);
    await this.#takeBack(ended).catch(this.#say);
    const left = await readEntries(LENT_DIR);
    const lent = new Set(left.map(({ network }) => network.tap));
    for (const { endpoint } of taps) {
      // Of one who died before he wrote down to whom it is lent.
      const isLeft = !lent.has(endpoint.tap) && (await lookAtTap(endpoint.tap)).isUp;
      if (isLeft) await shut(endpoint.tap).catch(this.#say);
    }
    if (++this.#looks % LOOKS_A_MEND === 0) await this.#mend(left);
    await this.#sweepLogs(left);
  }

  /** Where somebody has flushed the rules, VMs reach nothing until they are there again. */
  async #mend(entries: readonly NetworkEntry[]): Promise<void> {
    if (entries.length === 0) return;
    const nft = new NftClient();
    const ruled = new Set((await nft.hasBase()) ? await nft.taps() : []);
    for (const { network } of entries) {
      if (ruled.has(network.tap)) continue;
      await withHostNetwork(undefined, async () => {
        if ((await userOf(network.tap)) !== undefined) await rebuildRules(network);
      }).catch(this.#say);
    }
  }

  /** Nobody has it open any more, or has not opened it in time, or it is another's tap by now. */
  async #hasEnded({ vmId, network }: NetworkEntry): Promise<boolean> {
    if ((await userOf(network.tap)) === undefined) return true;
    if (await isOpened(network.tap)) {
      this.#opened.add(vmId);
      return false;
    }
    if (this.#opened.has(vmId)) return true;
    // Of a service that died, too: it begins to wait anew.
    const since = this.#waiting.get(vmId) ?? performance.now();
    this.#waiting.set(vmId, since);
    return performance.now() - since > OPEN_MS;
  }

  async #answer(uid: number, request: LoanRequest): Promise<LoanReply> {
    if (request.do === 'take') return this.#lend(uid);
    const entry = await readEntry(LENT_DIR, request.id);
    const isEnded = entry === undefined && (await userOfEnded(LENT_DIR, request.id)) === uid;
    if (isEnded && request.do === 'forget') await removeEnded(LENT_DIR, request.id);
    if (isEnded && request.do !== 'renew') return { given: true };
    if (entry === undefined || (await userOf(entry.network.tap)) !== uid) {
      return { refused: 'there is no such loan', hint: 'Start the VM again.' };
    }
    if (request.do === 'renew') return this.#renew(entry);
    if (request.do === 'give') {
      // What is open is in use, whatever is said; the look that finds it shut takes it back.
      if (await isOpened(entry.network.tap)) return { open: true };
      await this.#takeBack([entry]);
      await this.#sweepLogs(await readEntries(LENT_DIR));
    }
    return { given: true };
  }

  async #lend(uid: number): Promise<LoanReply> {
    const id = randomBytes(LOAN_ID_BYTES).toString('hex');
    const tap = await this.#findFree(uid);
    if (tap === undefined) return noneFree(uid);
    const { tap: name, guestAddress, gatewayAddress, index } = tap.endpoint;
    const network: VmNetwork = {
      ...{ tap: name, guestAddress, gatewayAddress, mac: lentMac(index) },
      ...{
        generation: await withHostNetwork(undefined, () => nextGeneration(name)),
        policy: makePolicy({}).rules,
        isLent: true,
      },
    };
    const entry = entryOf(id, network);
    try {
      await withHostNetwork(undefined, async () => {
        if ((await userOf(name)) !== uid) throw new Error(`${name} is gone`);
        await remakeLentTap(tap);
        await addRules(network, undefined);
        await raiseTap(tap.endpoint, network.mac);
      });
      this.#waiting.set(id, performance.now());
      await writeEntry(LENT_DIR, entry);
      const why = await this.#o.serve(id);
      if (why !== 'ok') throw new Error(`its names cannot be answered: ${why}`);
      return replyOf(entry);
    } catch (error) {
      await this.#takeBack([entry]).catch(this.#say); // the look will
      throw error;
    }
  }

  async #findFree(uid: number): Promise<LentTap | undefined> {
    const lent = new Set((await readEntries(LENT_DIR)).map(({ network }) => network.tap));
    for (const tap of await lentTaps()) {
      const { tap: name } = tap.endpoint;
      if (tap.uid === uid && !lent.has(name) && !(await isOpened(name))) return tap;
    }
    return undefined;
  }

  /** What is to be is noted before it is, as of any change of a policy: see join.ts. */
  async #renew(before: NetworkEntry): Promise<LoanReply> {
    const { tap } = before.network;
    const generation = await withHostNetwork(undefined, () => nextGeneration(tap));
    const after = { ...before, isChanging: undefined, network: { ...before.network, generation } };
    await writeEntry(LENT_DIR, { ...before, isChanging: true });
    if (before.isChanging === true)
      await withHostNetwork(undefined, () => rebuildRules(after.network));
    else await new NftClient().apply(changePolicy(before.network, after.network));
    await writeEntry(LENT_DIR, after);
    await this.#o.serve(after.vmId);
    return replyOf(after);
  }

  /**
   * First all taps are shut: what was logged is waited for once, as everybody waits for it. An entry goes last, so that whoever
   * dies here is followed by one who goes on. Logs stay for their users to copy.
   * @throws the first error; it is in the way of no other loan
   */
  async #takeBack(loans: readonly NetworkEntry[]): Promise<void> {
    const errors: unknown[] = [];
    const fail = (error: unknown): void => void errors.push(error);
    const down: { vmId: string; uid: number | undefined }[] = [];
    for (const { vmId, network } of loans) {
      const uid = await userOf(network.tap);
      await shut(network.tap).then(() => down.push({ vmId, uid }), fail);
    }
    if (down.length > 0) {
      await this.#o.settle(down.map(({ vmId }) => vmId));
      for (const { vmId, uid } of down) await this.#endLoan(vmId, uid).catch(fail);
      await this.#o.serve('');
    }
    if (errors.length > 0) throw errors[0];
  }

  async #endLoan(id: string, uid: number | undefined): Promise<void> {
    if (uid !== undefined) await noteEnd(LENT_DIR, id, uid).catch(this.#say);
    await removeEntry(LENT_DIR, id);
    this.#waiting.delete(id);
    this.#opened.delete(id);
  }

  async #sweepLogs(entries: readonly NetworkEntry[]): Promise<void> {
    await sweepLogs(LENT_DIR, { lent: entries.map(({ vmId }) => vmId), users: this.#users });
  }

  async #listenTo(uid: number): Promise<void> {
    const path = lenderSocket(uid);
    const server = createServer((socket) => this.#hear(uid, socket));
    server.maxConnections = MAX_CALLERS;
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen(path, resolve);
    });
    server.on('error', () => undefined); // of one caller
    this.#servers.set(uid, server);
    await chmod(path, 0o600); // root's alone until it is his
    await chown(path, uid, -1);
  }

  async #ignoreUser(uid: number): Promise<void> {
    this.#servers.get(uid)?.close();
    this.#servers.delete(uid);
    await rm(lenderSocket(uid), { force: true });
  }

  #hear(uid: number, socket: Socket): void {
    const answer = (request: LoanRequest): Promise<LoanReply> =>
      this.#queue.runFor(uid, async () => {
        if (socket.destroyed && isForUse(request)) throw new Error('who asked has gone'); // no work for nobody
        return this.#answer(uid, request);
      });
    hearCaller(socket, {
      answer: (request) => answer(request).catch((error: unknown) => this.#refusal(error)),
      onUnheard: (reply) => {
        if (!('loan' in reply)) return;
        answer({ do: 'give', id: reply.loan.id }).catch(this.#say);
      },
    });
  }

  #refusal(error: unknown): LoanReply {
    const message = error instanceof Error ? error.message : String(error);
    this.#say(error);
    const hint = error instanceof QmpAgentError ? error.hint : undefined;
    return { refused: message, hint: hint ?? `Have root look into ${LENT_DIR}/service.log.` };
  }
}

/** The tap is down before its rules go. */
async function shut(tap: string): Promise<void> {
  await withHostNetwork(undefined, async () => {
    const isThere = (await interfaces()).includes(tap);
    if (isThere && (await userOf(tap)) === undefined) return; // another's by now, whose rules these are
    if (isThere) await ipBatch([`link set dev ${tap} down`]);
    await removeLeft(tap);
  });
}

function entryOf(id: string, network: VmNetwork): NetworkEntry {
  return {
    vmId: id,
    network,
    policy: makePolicy({}),
    egress: {},
    published: [],
    logPath: loanLogPath(LENT_DIR, id),
    isLogOpen: true,
  };
}

function replyOf({ vmId: id, network, logPath }: NetworkEntry): LoanReply {
  return { loan: { id, logPath }, network };
}

function noneFree(uid: number): LoanReply {
  return {
    refused: `all taps of user ${uid} are taken`,
    hint: 'End a VM, or have root make more: qmp-agent setup network --taps N --user NAME.',
  };
}
