/** What HTTP/2 runs on. */
import { GUEST_WINDOW_BYTES } from '../../guest-agent/protocol.ts';
import { SocketDuplex, type Done } from '../../guest-agent/socket-duplex.ts';

/**
 * What waits for the socket, at most. Beyond what an honest guest allows us to send, with room for
 * frame heads, so that only a guest that lies about its window ever meets it.
 */
const MAX_QUEUED_BYTES = 2 * GUEST_WINDOW_BYTES;

/**
 * A socket that says "written" as soon as it has the bytes. Node's HTTP/2 stops reading as long as a
 * write is under way; a guest that waits for us to read before it reads would then wait for ever.
 */
export class EagerSocket extends SocketDuplex {
  override _write(chunk: Buffer, _encoding: string, done: Done): void {
    this.#send(chunk);
    this.#taken(done);
  }

  override _writev(chunks: { chunk: unknown }[], done: Done): void {
    this.socket.cork();
    for (const { chunk } of chunks) this.#send(chunk as Buffer);
    this.socket.uncork();
    this.#taken(done);
  }

  #send(chunk: Buffer): void {
    this.onSent?.(chunk);
    this.socket.write(chunk);
  }

  #taken(done: Done): void {
    if (this.socket.writableLength <= MAX_QUEUED_BYTES) done();
    else this.socket.once('drain', () => done());
  }
}
