/** Which servers to forward to. */
import { readFile, stat } from 'node:fs/promises';
import { isIP } from 'node:net';
import { ConfigError, HostError } from '../../errors.ts';

/** One upstream server. */
export interface Server {
  readonly address: string;
  readonly port: number;
}

const DNS_PORT = 53;
/** glibc takes 3 (`MAXNS`); nobody waits for a fifth. */
const MAX_SERVERS = 4;
/** A file that changed is noticed after this long at most. */
const CHECK_INTERVAL_MS = 5_000;
const MAX_FILE_BYTES = 65_536;
/** After this long the order given holds again: the first server may know names that the others do not. */
const PREFERENCE_MS = 60_000;

/** Reads `10.0.0.1`, `10.0.0.1:5353`, `10.0.0.1#5353`, `2001:db8::1`, `[2001:db8::1]:5353`. */
export function parseServer(text: string): Server | undefined {
  const match =
    /^\[([^\]]+)\](?::(\d{1,5}))?$/.exec(text) ??
    /^([\d.]+):(\d{1,5})$/.exec(text) ??
    /^([^#]+)(?:#(\d{1,5}))?$/.exec(text);
  const address = match?.[1] ?? '';
  const port = Number(match?.[2] ?? DNS_PORT);
  if (isIP(address) === 0 || port < 1 || port > 65_535) return undefined;
  return { address, port };
}

/** The `nameserver` lines of a resolv.conf(5); what cannot be read is skipped, as libc does. */
export function parseResolvConf(text: string): Server[] {
  return text
    .split('\n')
    .flatMap((line) => /^nameserver\s+(\S+)/.exec(line)?.[1] ?? [])
    .flatMap((address) => parseServer(address) ?? [])
    .slice(0, MAX_SERVERS);
}

/** The servers, in front the one that answered last when another did not. */
export class ServerList {
  readonly #path: string | undefined;
  readonly #now: () => number;
  #servers: readonly Server[];
  #preferred = 0;
  #preferredUntil = 0;
  #modified = 0;
  #checkedAt: number;

  private constructor(servers: readonly Server[], path: string | undefined, now: () => number) {
    this.#servers = servers;
    this.#path = path;
    this.#now = now;
    this.#checkedAt = now();
  }

  /** @throws {@link ConfigError} for an address that is none, or an empty list */
  static of(addresses: readonly string[], now: () => number): ServerList {
    const field = 'upstreams';
    const hint = 'give one to four addresses, such as 10.0.0.1 or 10.0.0.1:5353';
    if (addresses.length === 0 || addresses.length > MAX_SERVERS) {
      const message = `${field}: ${addresses.length} servers`;
      throw new ConfigError(message, { field, value: addresses, hint });
    }
    const servers = addresses.map((address) => {
      const server = parseServer(address);
      if (server !== undefined) return server;
      const message = `${field}: ${JSON.stringify(address)} is no address of a server`;
      throw new ConfigError(message, { field, value: address, hint });
    });
    return new ServerList(servers, undefined, now);
  }

  /** Reads the host's file. @throws {@link HostError} where it names no server */
  static async fromFile(path: string, now: () => number): Promise<ServerList> {
    const list = new ServerList([], path, now);
    await list.#read(path).catch((error: unknown) => fail(path, error));
    return list.#servers.length > 0 ? list : fail(path);
  }

  /** In the order in which to try them. */
  ordered(): readonly Server[] {
    this.#check();
    const servers = this.#servers;
    if (this.#now() >= this.#preferredUntil) this.#preferred = 0;
    return [...servers.slice(this.#preferred), ...servers.slice(0, this.#preferred)];
  }

  /** Has the server tried first for a minute: those before it may be down, and each costs its timeout. */
  prefer(server: Server): void {
    const index = this.#servers.indexOf(server);
    if (index < 0 || index === this.#preferred) return;
    this.#preferred = index;
    this.#preferredUntil = this.#now() + PREFERENCE_MS;
  }

  /** Looks for a change in the background: a query never waits for it. */
  #check(): void {
    const now = this.#now();
    if (this.#path === undefined || now - this.#checkedAt < CHECK_INTERVAL_MS) return;
    this.#checkedAt = now;
    // While the file is away or being written, the servers that were there serve on.
    this.#read(this.#path).catch(() => undefined);
  }

  async #read(path: string): Promise<void> {
    const { mtimeMs, size } = await stat(path);
    if (mtimeMs === this.#modified || size > MAX_FILE_BYTES) return;
    const servers = parseResolvConf(await readFile(path, 'utf8'));
    this.#modified = mtimeMs;
    if (servers.length === 0) return;
    this.#servers = servers;
    this.#preferred = 0;
  }
}

function fail(path: string, cause?: unknown): never {
  throw new HostError('ERR_HOST_DNS', `no name server is to be had from ${path}`, {
    hint: `write a nameserver line into ${path}, or name the upstream servers`,
    cause,
  });
}
