/** A command that keeps QEMU busy for as long as a test needs. */
import { once } from 'node:events';
import { createServer } from 'node:net';
import type { Server, Socket } from 'node:net';
import { join } from 'node:path';
import type { ExecuteOptions, QmpArguments, QmpClient } from '../../../qmp/index.ts';
import type { TestQemu } from './qemu.ts';

/**
 * An NBD server that takes connections and says nothing. QEMU's main loop waits for it in
 * `blockdev-add`, and every in-band command after that waits too.
 */
export class SilentNbd implements AsyncDisposable {
  /** The arguments of `blockdev-add`. */
  readonly node: QmpArguments<'blockdev-add'>;
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();

  private constructor(path: string) {
    this.node = { driver: 'nbd', 'node-name': 'stuck', server: { type: 'unix', path } };
    this.#server = createServer((socket) => {
      this.#sockets.add(socket.on('error', () => undefined));
    });
  }

  /** Listens in QEMU's directory. */
  static async listen(qemu: TestQemu): Promise<SilentNbd> {
    const path = join(qemu.dir, 'nbd.sock');
    const nbd = new SilentNbd(path);
    await once(nbd.#server.listen(path), 'listening');
    return nbd;
  }

  /** Resolves when QEMU next connects. */
  async connected(): Promise<void> {
    await once(this.#server, 'connection');
  }

  /** Lets QEMU go on: its command fails. */
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

/** A command in flight that is answered, with an error, on release. */
export class StuckCommand implements AsyncDisposable {
  readonly result: Promise<unknown>;
  readonly #nbd: SilentNbd;

  private constructor(nbd: SilentNbd, result: Promise<unknown>) {
    this.#nbd = nbd;
    this.result = result;
  }

  /** Gets QEMU stuck; returns once it is. */
  static async start(
    qemu: TestQemu,
    client: QmpClient,
    options?: ExecuteOptions,
  ): Promise<StuckCommand> {
    const nbd = await SilentNbd.listen(qemu);
    const connected = nbd.connected();
    const result = client.execute('blockdev-add', nbd.node, options);
    result.catch(() => undefined);
    await connected;
    return new StuckCommand(nbd, result);
  }

  /** Lets QEMU go on. */
  release(): Promise<void> {
    return this.#nbd.release();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.release();
  }
}
