import { ConfigError, HostError, NotFoundError, StateError } from '../../errors.ts';
import { events } from '../../events.ts';
import { isIPv4 } from 'node:net';
import { NEVER_RANGES, parseRange } from './addresses.ts';
import { Client, type ClientContext } from './client.ts';
import { PendingGate } from './pending.ts';
import { ServerList } from './servers.ts';
import { TcpListener } from './tcp-listener.ts';
import type { ResolverClient, ResolverOptions, ResolverPolicy, ResolverStats } from './types.ts';
import { UdpListener } from './udp-listener.ts';
import { Upstream } from './upstream.ts';

const DNS_PORT = 53;
const GRACE_SECONDS = 300;
const MAX_TTL_SECONDS = 3_600;
const PENDING_QUERIES = 1_024;
const DAY_SECONDS = 86_400;

/** A client and its ports. */
interface Service extends AsyncDisposable {
  readonly client: Client;
  readonly tcp: TcpListener;
}

/**
 * The name server of all VMs of a host: it listens on each VM's gateway address, forwards what the
 * VM's policy allows, and has the addresses opened before the guest learns of them.
 *
 * ```ts
 * await using resolver = await Resolver.create({
 *   onAddresses: (client, { addresses, ttlSeconds }) => open(client.id, addresses, ttlSeconds),
 * });
 * await resolver.add({
 *   id: 'a1b2', listenAddress: '10.210.0.2', guestAddress: '10.210.0.3',
 *   policy: { allowDomains: ['git.example.net', '*.example.org'] },
 * });
 * ```
 */
export class Resolver implements AsyncDisposable {
  readonly #context: ClientContext;
  readonly #port: number;
  readonly #upstream: Upstream;
  readonly #services = new Map<string, Service>();
  /** Ids and addresses of clients, those that are being added included. */
  readonly #taken = new Set<string>();
  #closed: Promise<void> | undefined;

  private constructor(context: ClientContext, port: number) {
    this.#context = context;
    this.#upstream = context.upstream;
    this.#port = port;
  }

  /**
   * Makes a resolver without clients.
   *
   * @throws {@link ConfigError} for an option that cannot be used
   * @throws {@link HostError} where neither the options nor the host name an upstream server
   */
  static async create(options: ResolverOptions = {}): Promise<Resolver> {
    const now = options.now ?? (() => performance.now());
    const port = bounded('port', options.port ?? DNS_PORT, 1, 65_535);
    const extra = (options.neverAddresses ?? []).map((range, index) =>
      parseRange(range, `neverAddresses[${index}]`),
    );
    const limits = {
      graceSeconds: bounded('graceSeconds', options.graceSeconds ?? GRACE_SECONDS, 0, DAY_SECONDS),
      maxTtlSeconds: bounded(
        'maxTtlSeconds',
        options.maxTtlSeconds ?? MAX_TTL_SECONDS,
        1,
        DAY_SECONDS,
      ),
      pending: bounded('pendingQueries', options.pendingQueries ?? PENDING_QUERIES, 1, 16_384),
    };
    const servers =
      options.upstreams === undefined
        ? await ServerList.fromFile(options.resolvConfPath ?? '/etc/resolv.conf', now)
        : ServerList.of(options.upstreams, now);
    const context: ClientContext = {
      upstream: new Upstream(servers),
      events: options.events ?? events,
      onAddresses: options.onAddresses ?? (() => undefined),
      graceSeconds: limits.graceSeconds,
      maxTtlSeconds: limits.maxTtlSeconds,
      never: [...NEVER_RANGES, ...extra],
      gate: new PendingGate(limits.pending),
      now,
    };
    return new Resolver(context, port);
  }

  /**
   * Serves a VM from now on. Its gateway address must be there already.
   *
   * @throws {@link ConfigError} for a policy, an address or an id that cannot be used
   * @throws {@link HostError} where the address cannot be listened on; nothing is left then
   */
  async add(spec: ResolverClient): Promise<void> {
    if (this.#closed !== undefined) throw closedError(spec.id);
    checkAddress('listenAddress', spec.listenAddress);
    checkAddress('guestAddress', spec.guestAddress);
    const client = new Client(spec, this.#context);
    this.#take(spec);
    try {
      const service = await this.#listen(client);
      // Closed meanwhile: nobody else would ever close these.
      if (this.#closed !== undefined) {
        await service[Symbol.asyncDispose]();
        throw closedError(spec.id);
      }
      this.#services.set(spec.id, service);
    } catch (error) {
      this.#release(spec);
      throw error;
    }
  }

  /** Ends a VM's service; what is under way is not answered. Does nothing where there is none. */
  async remove(id: string): Promise<void> {
    const service = this.#services.get(id);
    if (service === undefined) return;
    this.#services.delete(id);
    try {
      await service[Symbol.asyncDispose]();
    } finally {
      this.#release(service.client.spec);
    }
  }

  /**
   * Gives a VM another policy at once, for queries that are under way, too.
   *
   * @throws {@link NotFoundError} for a VM that is not served
   * @throws {@link ConfigError} for a policy that cannot be used; the old one holds on
   */
  change(id: string, policy: ResolverPolicy): void {
    this.#find(id).client.change(policy);
  }

  /** Counters of a VM. @throws {@link NotFoundError} for a VM that is not served */
  stats(id: string): ResolverStats {
    const { client, tcp } = this.#find(id);
    return { ...client.stats, tcpConnections: tcp.connections };
  }

  /** Replies from upstream that were to none of our questions: somebody there may be guessing. */
  get foreignReplies(): number {
    return this.#upstream.foreignReplies;
  }

  /** Ids of the VMs that are served. */
  get clients(): readonly string[] {
    return [...this.#services.keys()];
  }

  /** Ends all services. */
  [Symbol.asyncDispose](): Promise<void> {
    this.#closed ??= this.#close();
    return this.#closed;
  }

  async #close(): Promise<void> {
    this.#upstream[Symbol.dispose]();
    await Promise.allSettled(this.clients.map((id) => this.remove(id)));
  }

  #find(id: string): Service {
    const service = this.#services.get(id);
    if (service !== undefined) return service;
    const message = `vm ${id} is not served by the resolver`;
    throw new NotFoundError(message, { kind: 'resolver client', query: id, vmId: id });
  }

  /** Both in one step, so that two clients that are added at once do not get in each other's way. */
  #take({ id, listenAddress }: ResolverClient): void {
    for (const [field, value] of Object.entries({ id, listenAddress })) {
      if (!this.#taken.has(`${field} ${value}`)) continue;
      const message = `${field}: ${value} is served already`;
      throw new ConfigError(message, { field, value, vmId: id, hint: 'remove that client first' });
    }
    this.#taken.add(`id ${id}`).add(`listenAddress ${listenAddress}`);
  }

  #release({ id, listenAddress }: ResolverClient): void {
    this.#taken.delete(`id ${id}`);
    this.#taken.delete(`listenAddress ${listenAddress}`);
  }

  async #listen(client: Client): Promise<Service> {
    const opened: AsyncDisposable[] = [];
    const dispose = async (): Promise<void> => {
      client.close();
      await Promise.all(opened.map((listener) => listener[Symbol.asyncDispose]()));
    };
    try {
      const tcp = await TcpListener.open(client, this.#port);
      opened.push(tcp);
      opened.push(await UdpListener.open(client, this.#port));
      return { client, tcp, [Symbol.asyncDispose]: dispose };
    } catch (error) {
      await dispose();
      throw listenError(client.spec, this.#port, error);
    }
  }
}

function bounded(field: string, value: number, least: number, most: number): number {
  if (Number.isSafeInteger(value) && value >= least && value <= most) return value;
  throw new ConfigError(`${field}: ${value} is out of bounds`, {
    field,
    value,
    hint: `give a whole number from ${least} to ${most}`,
  });
}

function checkAddress(field: string, value: string): void {
  if (isIPv4(value)) return;
  throw new ConfigError(`${field}: ${JSON.stringify(value)} is no IPv4 address`, {
    field,
    value,
    hint: 'give four numbers, such as 10.210.0.2',
  });
}

function listenError(spec: ResolverClient, port: number, cause: unknown): HostError {
  const code = (cause as NodeJS.ErrnoException).code;
  const where = `${spec.listenAddress}, port ${port}`;
  const hints: Record<string, string> = {
    EADDRINUSE: `end what listens there: ss -lntup 'sport = :${port}'`,
    EADDRNOTAVAIL: 'give the address to the VM’s network interface first',
    EACCES: 'run as root, or with CAP_NET_BIND_SERVICE',
  };
  return new HostError(
    code === 'EACCES' || code === 'EPERM' ? 'ERR_HOST_PERMISSION' : 'ERR_HOST_SOCKET',
    `the resolver cannot listen on ${where} (${code ?? String(cause)})`,
    { hint: hints[code ?? ''] ?? 'see the cause', vmId: spec.id, cause },
  );
}

function closedError(vmId: string): StateError {
  const message = 'the resolver is closed';
  return new StateError(message, { actual: 'closed', required: ['open'], vmId });
}
