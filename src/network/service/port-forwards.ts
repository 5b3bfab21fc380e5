/**
 * Published ports: the service listens on the host's port and connects each caller to the guest's. So a port
 * that is taken is an error at once, loopback needs no setting of the kernel's, and no rule of anybody's is
 * changed; the guest sees its gateway as the caller.
 */
import { connect, createServer, type Server, type Socket } from 'node:net';
import { HostError } from '../../errors.ts';
import type { PublishedHostPort } from '../publish.ts';
import { UdpForward } from './udp-forward.ts';

/** Callers of one port at a time. */
const MAX_CALLERS = 1_024;
/** A guest that does not answer is given up on. */
const CONNECT_MS = 10_000;

/** The ports of all VMs that a service serves. */
export class PortForwards implements AsyncDisposable {
  readonly #servers = new Map<string, (Server | UdpForward)[]>();
  readonly #sockets = new Map<string, Set<Socket>>();

  /**
   * Listens on the ports of a VM. None is left where one cannot be had.
   * @throws HostError ERR_HOST_SOCKET
   */
  async add(
    vmId: string,
    guestAddress: string,
    ports: readonly PublishedHostPort[],
  ): Promise<void> {
    if (ports.length === 0) return;
    const servers: (Server | UdpForward)[] = [];
    this.#servers.set(vmId, servers);
    this.#sockets.set(vmId, new Set());
    try {
      for (const port of ports) {
        servers.push(
          port.protocol === 'udp'
            ? await openUdp(vmId, guestAddress, port)
            : await this.#listen(vmId, guestAddress, port),
        );
      }
    } catch (error) {
      await this.remove(vmId);
      throw error;
    }
  }

  /** Who speaks through them is cut off: the guest went back to a time when it did not know him. */
  cut(vmId: string): void {
    for (const server of this.#servers.get(vmId) ?? []) {
      if (server instanceof UdpForward) server.cut();
    }
    for (const socket of this.#sockets.get(vmId) ?? []) socket.destroy();
  }

  /** Ends them, and who speaks through them. */
  async remove(vmId: string): Promise<void> {
    this.cut(vmId);
    const servers = this.#servers.get(vmId) ?? [];
    this.#servers.delete(vmId);
    const closed = servers.map((server) =>
      server instanceof UdpForward
        ? server[Symbol.asyncDispose]()
        : new Promise((resolve) => server.close(resolve)),
    );
    this.#sockets.delete(vmId);
    await Promise.all(closed);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all([...this.#servers.keys()].map((id) => this.remove(id)));
  }

  async #listen(vmId: string, guestAddress: string, port: PublishedHostPort): Promise<Server> {
    const { hostAddress, hostPort, guestPort } = port;
    const server = createServer({ allowHalfOpen: true, noDelay: true }, (caller) => {
      const guest = connect({
        ...{ host: guestAddress, port: guestPort },
        ...{ allowHalfOpen: true, noDelay: true },
      });
      this.#join(vmId, caller, guest);
    });
    server.maxConnections = MAX_CALLERS;
    await new Promise<void>((resolve, reject) => {
      server.once('error', (error: NodeJS.ErrnoException) => {
        reject(cannotListen(vmId, port, error));
      });
      server.listen(hostPort, hostAddress, resolve);
    });
    server.on('error', () => undefined); // of one caller: no descriptor left for it, say
    return server;
  }

  /** Either end's end is the other's; either's failure, too. */
  #join(vmId: string, caller: Socket, guest: Socket): void {
    const sockets = this.#sockets.get(vmId);
    guest.setTimeout(CONNECT_MS, () => guest.destroy());
    guest.once('connect', () => guest.setTimeout(0));
    for (const [socket, other] of [
      [caller, guest],
      [guest, caller],
    ] as const) {
      sockets?.add(socket);
      socket.on('error', () => undefined); // told by `close`
      socket.once('close', () => {
        sockets?.delete(socket);
        other.destroySoon();
      });
      socket.pipe(other);
    }
  }
}

async function openUdp(
  vmId: string,
  guestAddress: string,
  port: PublishedHostPort,
): Promise<UdpForward> {
  return UdpForward.open(guestAddress, port).catch((error: unknown) => {
    throw cannotListen(vmId, port, error as NodeJS.ErrnoException);
  });
}

function cannotListen(
  vmId: string,
  { protocol, hostAddress, hostPort }: PublishedHostPort,
  error: NodeJS.ErrnoException,
): HostError {
  const isUdp = protocol === 'udp';
  const place = `${hostAddress}:${hostPort}${isUdp ? '/udp' : ''}`;
  const why =
    error.code === 'EADDRINUSE'
      ? 'another program has it'
      : error.code === 'EADDRNOTAVAIL'
        ? 'the host has no such address'
        : error.message;
  return new HostError('ERR_HOST_SOCKET', `${place} cannot be published: ${why}`, {
    hint: `Give another port of the host, or end the program that has it (${isUdp ? 'ss -lunp' : 'ss -ltnp'}).`,
    vmId,
    cause: error,
  });
}
