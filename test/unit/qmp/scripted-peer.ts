/** A peer that says what QEMU would not, over a real unix socket. */
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer } from 'node:net';
import type { Server, Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { QmpClient } from '../../../qmp/index.ts';
import type { QmpConnectOptions } from '../../../qmp/index.ts';

export const GREETING = {
  QMP: {
    version: { qemu: { major: 7, minor: 2, micro: 0 }, package: 'scripted' },
    capabilities: ['oob'],
  },
};

/** A command as it came. */
export interface Received {
  readonly execute?: string;
  readonly 'exec-oob'?: string;
  readonly arguments?: Record<string, unknown>;
  readonly id: string;
}

/** The peer's end of one connection. */
export class PeerConnection {
  readonly #socket: Socket;
  readonly #commands: AsyncIterator<string>;

  constructor(socket: Socket) {
    this.#socket = socket.on('error', () => undefined);
    this.#commands = createInterface({ input: socket })[Symbol.asyncIterator]();
  }

  /** Sends bytes as they are, or a value as a line of JSON; resolves when they are on their way. */
  async send(data: Buffer | string | object): Promise<void> {
    const isRaw = Buffer.isBuffer(data) || typeof data === 'string';
    const bytes = isRaw ? data : `${JSON.stringify(data)}\r\n`;
    await new Promise<void>((resolve) => {
      // An error shows at the client's end, which is what tests look at.
      this.#socket.write(bytes, () => resolve());
    });
  }

  /** The next command. */
  async receive(): Promise<Received> {
    const { value, done } = await this.#commands.next();
    if (done === true) throw new Error('the client closed the connection');
    return JSON.parse(value) as Received;
  }

  /** Answers the next command with success. */
  async answer(value: unknown = {}): Promise<Received> {
    const command = await this.receive();
    await this.send({ return: value, id: command.id });
    return command;
  }

  /** Closes the connection after what was sent. */
  end(): void {
    this.#socket.end();
  }
}

/** Listens, and takes connections one by one. */
export class ScriptedPeer implements AsyncDisposable {
  readonly path: string;
  readonly #dir: string;
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();

  private constructor(dir: string, path: string) {
    this.#dir = dir;
    this.path = path;
    this.#server = createServer((socket) => this.#sockets.add(socket));
  }

  static async listen(): Promise<ScriptedPeer> {
    const dir = await mkdtemp(join(tmpdir(), 'qmp-peer-'));
    const peer = new ScriptedPeer(dir, join(dir, 'sock'));
    await once(peer.#server.listen(peer.path), 'listening');
    return peer;
  }

  /** The next connection. */
  async accept(): Promise<PeerConnection> {
    const [socket] = (await once(this.#server, 'connection')) as [Socket];
    return new PeerConnection(socket);
  }

  /** A client after a regular negotiation, and the peer's end of it. */
  async negotiate(
    options: Partial<QmpConnectOptions> = {},
  ): Promise<{ client: QmpClient; peer: PeerConnection }> {
    const connecting = QmpClient.connect({ path: this.path, ...options });
    const peer = await this.accept();
    await peer.send(GREETING);
    await peer.answer();
    return { client: await connecting, peer };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const closed = once(this.#server, 'close');
    this.#server.close();
    for (const socket of this.#sockets) socket.destroy();
    await closed;
    await rm(this.#dir, { recursive: true, force: true });
  }
}
