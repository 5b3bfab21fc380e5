/** What HTTP/2 runs on. */
import type { Socket } from 'node:net';
import { Duplex } from 'node:stream';
import { GUEST_WINDOW_BYTES } from '../../guest-agent/protocol.ts';

/**
 * What waits for the socket, at most. Beyond what an honest guest allows us to send, with room for
 * frame heads, so that only a guest that lies about its window ever meets it.
 */
const MAX_QUEUED_BYTES = 2 * GUEST_WINDOW_BYTES;

/** Who looks at the bytes that pass. */
export interface TrafficObserver {
  /** Bytes came from the guest; they are passed on afterwards. */
  received(chunk: Buffer): void;
  /** Bytes go to the guest. */
  sent(chunk: Buffer): void;
}

/**
 * A socket that says "written" as soon as it has the bytes. Node's HTTP/2 stops reading as long as a
 * write is under way; a guest that waits for us to read before it reads would then wait for ever.
 */
export class EagerSocket extends Duplex {
  readonly #socket: Socket;
  readonly #observer: TrafficObserver;

  /** @param socket a connected one; taken over */
  constructor(socket: Socket, observer: TrafficObserver) {
    super({ allowHalfOpen: false });
    this.#socket = socket;
    this.#observer = observer;
    socket.on('data', (chunk: Buffer) => {
      observer.received(chunk);
      if (!this.push(chunk)) socket.pause();
    });
    socket.pause(); // until somebody reads
    socket.once('end', () => this.push(null));
    socket.once('error', (error) => this.destroy(error));
    socket.once('close', () => this.destroy());
  }

  override _read(): void {
    this.#socket.resume();
  }

  override _write(chunk: Buffer, _encoding: string, done: (error?: Error) => void): void {
    this.#send(chunk);
    this.#taken(done);
  }

  override _writev(chunks: { chunk: unknown }[], done: (error?: Error) => void): void {
    this.#socket.cork();
    for (const { chunk } of chunks) this.#send(chunk as Buffer);
    this.#socket.uncork();
    this.#taken(done);
  }

  override _final(done: () => void): void {
    this.#socket.end(done);
  }

  override _destroy(error: Error | null, done: (error: Error | null) => void): void {
    this.#socket.destroy();
    done(error);
  }

  #send(chunk: Buffer): void {
    this.#observer.sent(chunk);
    this.#socket.write(chunk);
  }

  #taken(done: (error?: Error) => void): void {
    if (this.#socket.writableLength <= MAX_QUEUED_BYTES) done();
    else this.#socket.once('drain', () => done());
  }
}
