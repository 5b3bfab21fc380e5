/** A client's TCP port (RFC 7766): several queries on one connection, answered as they get ready. */
import { once } from 'node:events';
import { createServer, type Server, type Socket } from 'node:net';
import type { Client } from './client.ts';
import { MAX_QUERY_BYTES } from './query.ts';

/** A connection on which nothing whole came in, or went out, for so long is closed. */
const IDLE_TIMEOUT_MS = 10_000;
/** Queries under way on one connection; more are not read until one is answered. */
const MAX_PIPELINED = 16;
/** Replies that the guest has not read; more, and the connection is closed. */
const MAX_UNREAD_BYTES = 131_072;
const LENGTH_BYTES = 2;

export class TcpListener implements AsyncDisposable {
  readonly #server: Server;
  readonly #client: Client;
  readonly #connections = new Set<Connection>();
  readonly #idleTimeoutMs: number;
  #closed: Promise<void> | undefined;

  private constructor(client: Client, idleTimeoutMs: number) {
    this.#client = client;
    this.#idleTimeoutMs = idleTimeoutMs;
    // Half-open: who shuts his side after the last query still wants its answer.
    this.#server = createServer({ allowHalfOpen: true, noDelay: true }, (socket) =>
      this.#accept(socket),
    );
  }

  /** Listens on the client's address. Rejects with the system's error. */
  static async open(
    client: Client,
    port: number,
    idleTimeoutMs = IDLE_TIMEOUT_MS,
  ): Promise<TcpListener> {
    const listener = new TcpListener(client, idleTimeoutMs);
    const listening = once(listener.#server, 'listening');
    listener.#server.listen({ host: client.spec.listenAddress, port, exclusive: true });
    await listening;
    // Out of descriptors, for example: the kernel keeps the connection, later ones may do.
    listener.#server.on('error', () => client.count('dropped'));
    return listener;
  }

  get connections(): number {
    return this.#connections.size;
  }

  [Symbol.asyncDispose](): Promise<void> {
    this.#closed ??= new Promise((resolve) => {
      this.#server.close(() => resolve());
      for (const connection of this.#connections) connection.destroy();
    });
    return this.#closed;
  }

  #accept(socket: Socket): void {
    socket.on('error', () => undefined);
    const isGuest = socket.remoteAddress === this.#client.spec.guestAddress;
    if (!isGuest || this.#connections.size >= this.#client.maxConnections) {
      this.#client.count(isGuest ? 'dropped' : 'wrongSource');
      socket.resetAndDestroy();
      return;
    }
    const connection = new Connection(socket, this.#client, this.#idleTimeoutMs);
    this.#connections.add(connection);
    socket.on('close', () => this.#connections.delete(connection));
  }
}

/** One connection. */
class Connection {
  readonly #socket: Socket;
  readonly #client: Client;
  readonly #idle: NodeJS.Timeout;
  #received = Buffer.alloc(0);
  #underWay = 0;
  #hasEnded = false;

  constructor(socket: Socket, client: Client, idleTimeoutMs: number) {
    this.#socket = socket;
    this.#client = client;
    // Not the socket's own timeout: that starts anew with each byte, and a slow sender would keep it open.
    this.#idle = setTimeout(() => this.destroy(), idleTimeoutMs);
    socket.on('data', (chunk) => {
      this.#received = Buffer.concat([this.#received, chunk]);
      this.#serve();
    });
    socket.on('end', () => {
      this.#hasEnded = true;
      this.#finish();
    });
    socket.on('close', () => clearTimeout(this.#idle));
  }

  destroy(): void {
    this.#socket.destroy();
  }

  /** Takes up what has come in whole, as many at once as may be. */
  #serve(): void {
    while (this.#underWay < MAX_PIPELINED && !this.#socket.destroyed) {
      if (this.#received.length < LENGTH_BYTES) break;
      const length = this.#received.readUInt16BE(0);
      if (length > MAX_QUERY_BYTES) return this.destroy();
      if (this.#received.length < LENGTH_BYTES + length) break;
      const query = this.#received.subarray(LENGTH_BYTES, LENGTH_BYTES + length);
      this.#received = this.#received.subarray(LENGTH_BYTES + length);
      this.#underWay += 1;
      this.#idle.refresh();
      void this.#answer(query);
    }
    if (this.#underWay >= MAX_PIPELINED) this.#socket.pause();
    else this.#socket.resume();
  }

  async #answer(query: Buffer): Promise<void> {
    const reply = await this.#client.answer(query, 'tcp');
    this.#underWay -= 1;
    if (this.#socket.destroyed) return;
    if (reply !== undefined) {
      if (this.#socket.writableLength > MAX_UNREAD_BYTES) {
        this.#client.count('dropped');
        return this.destroy();
      }
      const length = Buffer.alloc(LENGTH_BYTES);
      length.writeUInt16BE(reply.length);
      this.#socket.write(Buffer.concat([length, reply]), (error) => {
        if (!error) this.#idle.refresh();
      });
    }
    this.#serve();
    this.#finish();
  }

  /** After the guest's last query has been answered, our side ends, too. */
  #finish(): void {
    if (this.#hasEnded && this.#underWay === 0 && !this.#socket.destroyed) this.#socket.end();
  }
}
