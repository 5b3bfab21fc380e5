/** A command that keeps QEMU busy for as long as a test needs. */
import { once } from 'node:events';
import { createServer } from 'node:net';
import type { Server, Socket } from 'node:net';
import { join } from 'node:path';
import type { ExecuteOptions, QmpClient } from '../../../qmp/index.ts';
import type { TestQemu } from './qemu.ts';

/**
 * `blockdev-add` of an NBD server that takes the connection and says nothing: QEMU's main loop waits
 * for it, and every in-band command after it waits too. Its own answer, an error, comes on release.
 */
export class StuckCommand implements AsyncDisposable {
  readonly result: Promise<unknown>;
  readonly #server: Server;
  readonly #sockets: Socket[];

  private constructor(server: Server, sockets: Socket[], result: Promise<unknown>) {
    this.#server = server;
    this.#sockets = sockets;
    this.result = result;
  }

  /** Gets QEMU stuck; returns once it is. */
  static async start(
    qemu: TestQemu,
    client: QmpClient,
    options?: ExecuteOptions,
  ): Promise<StuckCommand> {
    const path = join(qemu.dir, 'nbd.sock');
    const sockets: Socket[] = [];
    const server = createServer((socket) => {
      sockets.push(socket.on('error', () => undefined));
    });
    await once(server.listen(path), 'listening');
    const connected = once(server, 'connection');
    const result = client.execute(
      'blockdev-add',
      { driver: 'nbd', 'node-name': 'stuck', server: { type: 'unix', path } },
      options,
    );
    result.catch(() => undefined);
    await connected;
    return new StuckCommand(server, sockets, result);
  }

  /** Lets QEMU go on. */
  async release(): Promise<void> {
    if (!this.#server.listening) return;
    const closed = once(this.#server, 'close');
    this.#server.close();
    for (const socket of this.#sockets) socket.destroy();
    await closed;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.release();
  }
}
