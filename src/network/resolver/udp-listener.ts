/** A client's UDP port. */
import { createSocket, type RemoteInfo, type Socket } from 'node:dgram';
import { once } from 'node:events';
import type { Client } from './client.ts';

/** Replies that wait for the kernel; more than that are dropped, as UDP may. */
const MAX_SEND_QUEUE_BYTES = 262_144;

export class UdpListener implements AsyncDisposable {
  readonly #socket: Socket;
  readonly #client: Client;
  #closed: Promise<void> | undefined;

  private constructor(socket: Socket, client: Client) {
    this.#socket = socket;
    this.#client = client;
  }

  /** Binds to the client's address. Rejects with the system's error. */
  static async open(client: Client, port: number): Promise<UdpListener> {
    const socket = createSocket('udp4');
    const listener = new UdpListener(socket, client);
    try {
      const listening = once(socket, 'listening');
      socket.bind({ address: client.spec.listenAddress, port, exclusive: true });
      await listening;
    } catch (error) {
      await listener[Symbol.asyncDispose]();
      throw error;
    }
    // A guest's address that went away makes sends fail; that is its own loss, and no end of ours.
    socket.on('error', () => client.count('dropped'));
    socket.on('message', (packet, from) => void listener.#receive(packet, from));
    return listener;
  }

  [Symbol.asyncDispose](): Promise<void> {
    this.#closed ??= new Promise((resolve) => this.#socket.close(() => resolve()));
    return this.#closed;
  }

  async #receive(packet: Buffer, from: RemoteInfo): Promise<void> {
    const client = this.#client;
    if (from.address !== client.spec.guestAddress) return client.count('wrongSource');
    const reply = await client.answer(packet, 'udp');
    if (reply === undefined || this.#closed !== undefined) return;
    if (from.port === 0 || this.#socket.getSendQueueSize() > MAX_SEND_QUEUE_BYTES) {
      return client.count('dropped');
    }
    this.#socket.send(reply, from.port, from.address, (error) => {
      if (error) client.count('dropped');
    });
  }
}
