/** Connections in the guest: the preamble, then HTTP/2. */
import type { Socket } from 'node:net';
import { guestPreamble, GuestPreambleReader } from './preamble.ts';
import { HELLO_TIMEOUT_MS } from './protocol.ts';
import type { SocketDuplex } from './socket-duplex.ts';
import { AGENT_VERSION } from './version.ts';

/**
 * Serves HTTP/2 on a connection whose next bytes are the client's preface, whenever they come; resolves when it
 * is over.
 */
export type ServeHttp2 = (connection: SocketDuplex) => Promise<void>;

/** A session that has begun, on a connection that has no socket yet. */
interface ReadySession {
  readonly connection: SocketDuplex;
  readonly over: Promise<void>;
}

/**
 * Serves connections to their ends. A preamble in the midst of HTTP/2 (the host started anew on a wire
 * that kept the old session, as after a snapshot) is a protocol error there; that ends the session, and
 * the next one answers it.
 *
 * With the end of each session the next one begins, and waits for its connection: a clone is not to do itself
 * what its template can have done for it. Under emulation that is 3 % of the code that a clone translates.
 */
export class SessionServer {
  readonly #load: () => Promise<ServeHttp2>;
  readonly #connect: () => SocketDuplex;
  #ready: ReadySession | undefined;

  /**
   * @param load the server, which is loaded once; only called when a host is there, since loading takes time
   * @param connect makes a connection without a socket
   */
  constructor(load: () => Promise<ServeHttp2>, connect: () => SocketDuplex) {
    this.#load = load;
    this.#connect = connect;
  }

  /** Never rejects, unless the server cannot be loaded. */
  async serve(socket: Socket): Promise<void> {
    socket.on('error', () => undefined); // 'close' follows and is what counts
    if (!(await shakeHands(socket))) return;
    const http2 = await this.#load();
    if (socket.destroyed) return;
    const { connection, over } = this.#ready ?? this.#begin(http2);
    this.#ready = undefined;
    connection.attach(socket);
    await over;
    this.#ready ??= this.#begin(http2);
  }

  #begin(http2: ServeHttp2): ReadySession {
    const connection = this.#connect();
    connection.on('error', () => undefined); // as of a socket
    return { connection, over: http2(connection) };
  }
}

/** Answers preambles; false where the connection ended before HTTP/2 began. */
function shakeHands(socket: Socket): Promise<boolean> {
  const reader = new GuestPreambleReader();
  return new Promise((resolve) => {
    const deadline = setTimeout(() => socket.destroy(), HELLO_TIMEOUT_MS);
    const onClose = () => {
      clearTimeout(deadline);
      resolve(false);
    };
    const onData = (chunk: Buffer) => {
      for (const event of reader.push(chunk)) {
        if (event.kind === 'hello') {
          // Who asks without end and never reads gets no more answers than the buffer holds.
          if (!socket.writableNeedDrain) {
            socket.write(guestPreamble(event.nonce, AGENT_VERSION));
          }
          continue;
        }
        clearTimeout(deadline);
        socket.pause();
        socket.off('data', onData);
        socket.off('close', onClose);
        socket.unshift(event.rest);
        resolve(true);
      }
    };
    socket.on('data', onData);
    socket.once('end', () => socket.destroy());
    socket.once('close', onClose);
  });
}
