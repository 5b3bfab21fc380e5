/** One connection in the guest: the preamble, then HTTP/2. */
import { guestPreamble, GuestPreambleReader } from './preamble.ts';
import { HELLO_TIMEOUT_MS } from './protocol.ts';
import type { SocketDuplex } from './socket-duplex.ts';
import { AGENT_VERSION } from './version.ts';

/** Serves HTTP/2 on a connection whose next bytes are the client's preface; resolves when it is over. */
export type ServeHttp2 = (connection: SocketDuplex) => Promise<void>;

/**
 * Serves a connection to its end. A preamble in the midst of HTTP/2 (the host started anew on a wire
 * that kept the old session, as after a snapshot) is a protocol error there; that ends the session, and
 * the next one answers it.
 *
 * @param http2 loads the server; only called when a host is there, since loading takes time
 */
export async function serveSession(
  connection: SocketDuplex,
  http2: () => Promise<ServeHttp2>,
): Promise<void> {
  connection.on('error', () => undefined); // 'close' follows and is what counts
  if (!(await shakeHands(connection))) return;
  const serve = await http2();
  if (!connection.destroyed) await serve(connection);
}

/** Answers preambles; false where the connection ended before HTTP/2 began. */
function shakeHands(connection: SocketDuplex): Promise<boolean> {
  const reader = new GuestPreambleReader();
  return new Promise((resolve) => {
    const deadline = setTimeout(() => connection.destroy(), HELLO_TIMEOUT_MS);
    const onClose = () => {
      clearTimeout(deadline);
      resolve(false);
    };
    const onData = (chunk: Buffer) => {
      for (const event of reader.push(chunk)) {
        if (event.kind === 'hello') {
          // Who asks without end and never reads gets no more answers than the buffer holds.
          if (!connection.writableNeedDrain) {
            connection.write(guestPreamble(event.nonce, AGENT_VERSION));
          }
          continue;
        }
        clearTimeout(deadline);
        connection.pause();
        connection.off('data', onData);
        connection.off('close', onClose);
        connection.unshift(event.rest);
        resolve(true);
      }
    };
    connection.on('data', onData);
    connection.once('end', () => connection.destroy());
    connection.once('close', onClose);
  });
}
