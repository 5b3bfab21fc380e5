/** One connection in the guest: the preamble, then HTTP/2. */
import type { Socket } from 'node:net';
import { guestPreamble, GuestPreambleReader } from './preamble.ts';
import { AGENT_VERSION } from './version.ts';

/** Serves HTTP/2 on a socket whose next bytes are the client's preface; resolves when it is over. */
export type ServeHttp2 = (socket: Socket) => Promise<void>;

/**
 * Serves a connection to its end. A preamble in the midst of HTTP/2 (the host started anew on a wire
 * that kept the old session, as after a snapshot) is a protocol error there; that ends the session, and
 * the next one answers it.
 *
 * @param http2 loads the server; only called when a host is there, since loading takes time
 */
export async function serveSession(
  socket: Socket,
  http2: () => Promise<ServeHttp2>,
): Promise<void> {
  socket.on('error', () => undefined); // 'close' follows and is what counts
  if (!(await shakeHands(socket))) return;
  const serve = await http2();
  if (!socket.destroyed) await serve(socket);
}

/** Answers preambles; false where the connection ended before HTTP/2 began. */
function shakeHands(socket: Socket): Promise<boolean> {
  const reader = new GuestPreambleReader();
  return new Promise((resolve) => {
    const onClose = () => resolve(false);
    const onData = (chunk: Buffer) => {
      for (const event of reader.push(chunk)) {
        if (event.kind === 'hello') {
          socket.write(guestPreamble(event.nonce, AGENT_VERSION));
          continue;
        }
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
