/**
 * A published UDP port. Who speaks to it has a socket of ours towards the guest, so that answers find their way back; it
 * is given up after some silence, as nothing ever says that a conversation in datagrams is over.
 */
import { createSocket, type Socket } from 'node:dgram';
import { once } from 'node:events';
import type { PublishedHostPort } from '../publish.ts';

/** Sources at a time; who comes then takes the place of the one that has been silent longest. */
const MAX_SESSIONS = 512;
/**
 * A source that has said nothing for so long is forgotten; the kernel's own for such connections is up to 120 s. Only its
 * own words count: by its answers a guest could hold a socket of the host's for ever (RFC 4787, REQ-6).
 */
const IDLE_MS = 90_000;
/** Datagrams that wait to be sent; what comes then is lost, as datagrams are. */
const MAX_QUEUED = 256;

/** Other limits, for tests. */
export interface UdpLimits {
  readonly maxSessions?: number | undefined;
  readonly idleMs?: number | undefined;
}

/** What one source says, and is told. */
interface Session {
  readonly guest: Socket;
  readonly idle: NodeJS.Timeout;
}

/** See above. */
export class UdpForward implements AsyncDisposable {
  readonly #listener: Socket;
  readonly #to: { readonly address: string; readonly port: number };
  readonly #maxSessions: number;
  readonly #idleMs: number;
  /** By source, the longest silent first. */
  readonly #sessions = new Map<string, Session>();

  private constructor(
    listener: Socket,
    to: { address: string; port: number },
    { maxSessions = MAX_SESSIONS, idleMs = IDLE_MS }: UdpLimits,
  ) {
    this.#listener = listener;
    this.#to = to;
    this.#maxSessions = maxSessions;
    this.#idleMs = idleMs;
    listener.on('message', (data, { address, port }) => this.#receive(data, address, port));
    listener.on('error', () => undefined); // a source that cannot be answered
  }

  /** @throws the system's error, where the port cannot be had */
  static async open(
    guestAddress: string,
    { hostAddress, hostPort, guestPort }: PublishedHostPort,
    limits: UdpLimits = {},
  ): Promise<UdpForward> {
    const listener = createSocket('udp4');
    try {
      const bound = once(listener, 'listening'); // rejects with an error that comes first
      listener.bind(hostPort, hostAddress);
      await bound;
    } catch (error) {
      listener.close();
      throw error;
    }
    return new UdpForward(listener, { address: guestAddress, port: guestPort }, limits);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.cut();
    const closed = once(this.#listener, 'close');
    this.#listener.close();
    await closed;
  }

  /** Forgets all sources: the guest is not the one that they spoke to. */
  cut(): void {
    for (const source of [...this.#sessions.keys()]) this.#forget(source);
  }

  #receive(data: Buffer, address: string, port: number): void {
    if (port === 0) return; // nobody could be answered there, and Node throws where it is tried
    const source = `${address}:${port}`;
    const session = this.#sessions.get(source) ?? this.#begin(source, address, port);
    session.idle.refresh();
    this.#sessions.delete(source);
    this.#sessions.set(source, session); // the last to have spoken
    send(session.guest, data, this.#to);
  }

  #begin(source: string, address: string, port: number): Session {
    const [oldest] = this.#sessions.keys();
    if (oldest !== undefined && this.#sessions.size >= this.#maxSessions) this.#forget(oldest);
    const guest = createSocket('udp4');
    const idle = setTimeout(() => this.#forget(source), this.#idleMs);
    guest.on('error', () => undefined); // no descriptor left, or no way to the guest: the datagram is lost
    guest.on('message', (data, from) => {
      if (from.address !== this.#to.address || from.port !== this.#to.port) return;
      send(this.#listener, data, { address, port });
    });
    return { guest, idle };
  }

  #forget(source: string): void {
    const session = this.#sessions.get(source);
    this.#sessions.delete(source);
    clearTimeout(session?.idle);
    session?.guest.close();
  }
}

/** Loses what cannot be sent: who speaks in datagrams reckons with that. */
function send(socket: Socket, data: Buffer, to: { address: string; port: number }): void {
  if (socket.getSendQueueCount() >= MAX_QUEUED) return;
  socket.send(data, to.port, to.address, () => undefined);
}
