/**
 * The one process of a state directory that VMs with a tap need alive: it answers their names, and opens to each
 * the addresses that it has just told it. Everything it knows is in the entries on disk, so that it can die and
 * be started anew at any time; without it VMs have no names, and everything else goes on.
 */
import { createServer, type Server, type Socket } from 'node:net';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import {
  allowAddress,
  KeptTable,
  LOG_GROUP,
  NftClient,
  type VmNetwork,
} from '../../../nft/index.ts';
import { readEntries, readEntry, type NetworkEntry } from '../entry.ts';
import {
  Resolver,
  type AddressAnswer,
  type ResolverClient,
  type ResolverPolicy,
} from '../resolver/index.ts';
import { fits } from '../resolver/names.ts';
import { EventStream } from '../../events.ts';
import { tryLock } from '../../with-lock.ts';
import { LogCapture } from '../traffic/log-capture.ts';
import { TrafficLogs } from '../traffic/logs.ts';
import { HostChanges } from './host-changes.ts';
import { PortForwards } from './port-forwards.ts';
import { serviceSocket } from './start.ts';

/** It ends after so long without a VM. */
const IDLE_MS = 5_000;
/** It looks at the entries at least this often, should nobody tell of a change. */
const LOOK_MS = 2_000;
/** For what has been read of the kernel's log to be written, at most: others wait for it. */
const SETTLE_MS = 1_000;
const MAX_REQUEST_CHARS = 128;
const REQUEST_TIMEOUT_MS = 10_000;

/** How one is to be. */
export interface ServiceOptions {
  /** Directory of the entries, of its lock and its socket. */
  readonly dir: string;
  /** For what goes wrong. */
  readonly say: (text: string) => void;
  /** nflog group of its VMs, which nobody else reads. Default: that of all but lent taps. */
  readonly logGroup?: number | undefined;
  /** Whether it is to go on where there is no VM. Default: it is not. */
  readonly isNeeded?: (() => boolean) | undefined;
}

/** See above. */
export class NetworkService implements AsyncDisposable {
  readonly #o: ServiceOptions;
  readonly #resolver: Resolver;
  readonly #lock: AsyncDisposable;
  readonly #nft = new NftClient();
  readonly #forwards = new PortForwards();
  readonly #logs: TrafficLogs;
  /** While there is a VM with IPv6: what holds where the rules are flushed. */
  readonly #kept = new KeptTable();
  readonly #changes: HostChanges;
  #hasIpv6 = false;
  /** Why it is not there, as of the last look. */
  #keepFailure: Error | undefined;
  /** While there is a VM: whoever has none leaves the kernel's log to others. */
  #capture: LogCapture | undefined;
  readonly #served = new Map<string, NetworkEntry>();
  readonly #failures = new Map<string, string>();
  readonly #server: Server;
  #isEnding = false;
  #syncing: Promise<void> = Promise.resolve();
  #timer: NodeJS.Timeout | undefined;
  #neededAt = performance.now();
  #end: () => void = () => undefined;
  /** Resolves when no VM has needed it for a while. */
  readonly idle: Promise<void>;

  /** @returns undefined where another one serves this directory */
  static async start(o: ServiceOptions): Promise<NetworkService | undefined> {
    const lock = await tryLock(join(o.dir, 'service.lock'));
    if (lock === undefined) return undefined;
    let service: NetworkService | undefined;
    try {
      const events = new EventStream(); // of this process alone: what it tells goes to the VMs' logs
      const resolver = await Resolver.create({
        events,
        onAddresses: async (client, answer, signal) => {
          await service?.openAddresses(client, answer, signal);
        },
      });
      const made = new NetworkService(o, resolver, lock);
      service = made;
      events.subscribe((event) => {
        if (event.type === 'dns.query') made.#logs.addQuery(event);
      });
      await service.#sync();
      await service.#listen();
      return service;
    } catch (error) {
      await (service?.[Symbol.asyncDispose]() ?? lock.close());
      throw error;
    }
  }

  private constructor(o: ServiceOptions, resolver: Resolver, lock: AsyncDisposable) {
    this.#o = o;
    this.#resolver = resolver;
    this.#lock = lock;
    this.#logs = new TrafficLogs();
    this.#changes = new HostChanges(o.say);
    this.#server = createServer((socket) => this.#receive(socket));
    this.idle = new Promise((resolve) => (this.#end = resolve));
  }

  /** Looks at the entries. @returns `ok`, or why this VM cannot be served; an empty id is of none */
  async refresh(vmId: string): Promise<string> {
    await this.#sync();
    return this.#replyTo(vmId);
  }

  /** Opens to a VM what it is about to be told. */
  async openAddresses(
    { id }: ResolverClient,
    { name, addresses, ttlSeconds }: AddressAnswer,
    signal: AbortSignal,
  ): Promise<void> {
    const entry = this.#served.get(id);
    if (entry === undefined) return;
    // Another VM may have its tap and addresses by now, or it other rules.
    const now = await readEntry(this.#o.dir, id);
    const { generation } = entry.network;
    if (now?.network.generation !== generation || now.network.tap !== entry.network.tap)
      throw new Error(`VM ${id} has changed since it asked`);
    if (entry.policy.denyDomains.some((pattern) => fits(pattern, name)))
      throw new Error(`${name} was denied to VM ${id} since it asked`);
    const transaction = entry.policy.names
      .filter(({ pattern }) => fits(pattern, name))
      .flatMap(({ ruleId }) =>
        allowAddress({ tap: entry.network.tap, ruleId, addresses, ttlS: Math.ceil(ttlSeconds) }),
      );
    if (transaction.length > 0) await this.#nft.applyTimed(transaction, { signal });
  }

  /**
   * Resolves when all that the kernel has logged so far of VMs whose taps are down is in their logs. At the latest after three
   * seconds, whatever other VMs do.
   */
  async settle(vmIds: readonly string[]): Promise<void> {
    await this.#capture?.drain();
    await this.#logs.settleOf(vmIds, SETTLE_MS);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#isEnding = true;
    clearTimeout(this.#timer);
    this.#server.close();
    await rm(serviceSocket(this.#o.dir), { force: true });
    await this.#syncing;
    await this.#changes[Symbol.asyncDispose]();
    await this.#forwards[Symbol.asyncDispose]();
    await this.#resolver[Symbol.asyncDispose]();
    await this.#capture?.[Symbol.asyncDispose]();
    await this.#kept[Symbol.asyncDispose]();
    await this.#logs.settle();
    await this.#lock[Symbol.asyncDispose]();
  }

  async #listen(): Promise<void> {
    const path = serviceSocket(this.#o.dir);
    await rm(path, { force: true }); // of one that died: we hold its lock
    await new Promise<void>((resolve, reject) => {
      this.#server.once('error', reject);
      this.#server.listen(path, resolve);
    });
    this.#look();
  }

  #look(): void {
    this.#timer = setTimeout(() => {
      void this.#sync().then(() => {
        if (this.#served.size > 0 || this.#o.isNeeded?.() === true)
          this.#neededAt = performance.now();
        if (this.#served.size > 0 || this.#hasIpv6)
          void this.#changes.look({ hasIpv6: this.#hasIpv6 });
        if (performance.now() - this.#neededAt > IDLE_MS) this.#end();
        else this.#look();
      });
    }, LOOK_MS);
  }

  /** Serves those that there are, as they are now. Never rejects. */
  #sync(): Promise<void> {
    this.#syncing = this.#syncing.then(() => this.#compare());
    return this.#syncing;
  }

  async #compare(): Promise<void> {
    const wanted = new Map((await readEntries(this.#o.dir)).map((entry) => [entry.vmId, entry]));
    for (const [id, { network }] of this.#served) {
      const now = wanted.get(id)?.network;
      if (now !== undefined && isSamePlace(now, network)) {
        // An earlier guest's: none of them was with this one.
        if (now.generation !== network.generation) this.#forwards.cut(id);
        continue;
      }
      await this.#forwards.remove(id);
      await this.#resolver.remove(id);
      this.#logs.remove(id);
      this.#served.delete(id);
      this.#failures.delete(id);
    }
    const hasIpv6 = ({ network }: NetworkEntry) => network.v6 !== undefined;
    const entries = [...wanted.values()];
    for (const entry of entries) if (!hasIpv6(entry)) await this.#serve(entry);
    this.#hasIpv6 = entries.some(hasIpv6);
    await this.#keep({ isNeeded: this.#hasIpv6 });
    for (const entry of entries) if (hasIpv6(entry)) await this.#serve(entry);
    await this.#captureWhileNeeded();
  }

  /** Needed by all with IPv6, also by those that cannot be served. Whoever kills nft has it come again with the next look. */
  async #keep({ isNeeded }: { isNeeded: boolean }): Promise<void> {
    const before = this.#keepFailure;
    this.#keepFailure = undefined;
    try {
      if (isNeeded) await this.#kept.hold();
      else await this.#kept.release();
    } catch (error) {
      this.#keepFailure = error instanceof Error ? error : new Error(String(error));
      if (this.#keepFailure.message !== before?.message) this.#o.say(this.#keepFailure.message);
    }
  }

  /** One that is about to end keeps it for who may come yet. */
  async #captureWhileNeeded(): Promise<void> {
    if (this.#served.size > 0) {
      this.#capture ??= new LogCapture({
        group: this.#o.logGroup ?? LOG_GROUP,
        onPacket: (packet) => this.#logs.addPacket(packet),
        say: this.#o.say,
      }).start();
    } else if (this.#o.isNeeded?.() === true) {
      await this.#capture?.[Symbol.asyncDispose]();
      this.#capture = undefined;
    }
  }

  async #serve(entry: NetworkEntry): Promise<void> {
    const { vmId } = entry;
    const known = this.#served.get(vmId);
    if (isDeepStrictEqual(known, entry)) return;
    try {
      if (known === undefined) await this.#add(entry);
      else this.#resolver.change(vmId, policyOf(entry));
      this.#served.set(vmId, entry);
      await this.#logs.set(entry);
      this.#failures.delete(vmId);
    } catch (error) {
      const message = error instanceof Error ? error.message : String(error);
      if (this.#failures.get(vmId) !== message) this.#o.say(`VM ${vmId}: ${message}`);
      this.#failures.set(vmId, message);
    }
  }

  async #add(entry: NetworkEntry): Promise<void> {
    const { vmId, network, published } = entry;
    if (network.v6 !== undefined && this.#keepFailure !== undefined) throw this.#keepFailure;
    await this.#resolver.add(clientOf(entry));
    try {
      await this.#forwards.add(vmId, network.guestAddress, published);
    } catch (error) {
      await this.#resolver.remove(vmId); // all of it is tried again
      throw error;
    }
  }

  #replyTo(vmId: string): string {
    const isServed = vmId === '' || this.#served.has(vmId);
    return this.#failures.get(vmId) ?? (isServed ? 'ok' : 'nothing is known of it');
  }

  #receive(socket: Socket): void {
    let text = '';
    socket.setEncoding('utf8');
    socket.setTimeout(REQUEST_TIMEOUT_MS, () => socket.destroy());
    socket.on('error', () => undefined);
    socket.on('data', (chunk: string) => {
      text += chunk;
      if (text.length > MAX_REQUEST_CHARS) socket.destroy();
      if (!text.endsWith('\n')) return;
      const [, vmId = ''] = text.trim().split(' ');
      text = '';
      void this.refresh(vmId).then((reply) => {
        // Who gets no answer asks the one that comes after this.
        if (this.#isEnding) socket.destroy();
        else socket.end(`${reply}\n`);
      });
    });
  }
}

/** Whether what is served to a VM goes on, whatever became of its policy and its guest. */
function isSamePlace(one: VmNetwork, other: VmNetwork): boolean {
  const placeOf = ({ tap, gatewayAddress, v6 }: VmNetwork) => ({ tap, gatewayAddress, v6 });
  return isDeepStrictEqual(placeOf(one), placeOf(other));
}

function clientOf(entry: NetworkEntry): ResolverClient {
  const { gatewayAddress, guestAddress, v6 } = entry.network;
  const ends = { listenAddress: gatewayAddress, guestAddress, hasIpv6: v6 !== undefined };
  return { id: entry.vmId, ...ends, policy: policyOf(entry) };
}

function policyOf({ policy }: NetworkEntry): ResolverPolicy {
  return {
    allowDomains: policy.allowDomains,
    denyDomains: policy.denyDomains,
    allowAddresses: policy.rules.exceptions,
    denial: policy.rules.denial === 'drop' ? 'drop' : 'refuse',
  };
}
