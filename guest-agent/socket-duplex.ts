/** A socket between HTTP/2 and the channel, so that somebody sees what passes. */
import type { Socket } from 'node:net';
import { Duplex } from 'node:stream';

/** Called when a write is done, or failed. */
export type Done = (error?: Error | null) => void;

/**
 * Passes bytes on, both ways. Given a bare socket, Node's HTTP/2 would read and write it without a line
 * of JavaScript; that is faster, but then nobody learns what it sends (see `goaway-watch.ts`).
 */
export class SocketDuplex extends Duplex {
  /** Told of every chunk that came, before it is passed on. */
  onReceived: ((chunk: Buffer) => void) | undefined;
  /** Told of every chunk that is sent. */
  onSent: ((chunk: Buffer) => void) | undefined;
  #socket: Socket | undefined;
  /** What is to be written first, as soon as there is where. */
  #held: (() => void) | undefined;
  /** Somebody has begun to read. */
  #isWanted = false;

  /** @param socket see {@link attach}; without one, what is written waits for it */
  constructor(socket?: Socket) {
    super({ allowHalfOpen: false });
    if (socket !== undefined) this.attach(socket);
  }

  /** Once. @param socket a connected one; taken over */
  attach(socket: Socket): void {
    this.#socket = socket;
    socket.on('data', (chunk: Buffer) => {
      const bytes = this.readOn(chunk);
      this.onReceived?.(bytes);
      if (!this.push(bytes)) socket.pause();
    });
    socket.pause(); // until somebody reads
    socket.once('end', () => this.push(null));
    socket.once('error', (error) => this.destroy(error));
    socket.once('close', () => this.destroy());
    if (this.#isWanted) socket.resume();
    this.#held?.();
    this.#held = undefined;
  }

  protected get socket(): Socket {
    if (this.#socket === undefined) throw new Error('there is no socket yet');
    return this.#socket;
  }

  /** Whether it is too early to write: then `write` is called later. */
  protected hold(write: () => void): boolean {
    if (this.#socket !== undefined) return false;
    this.#held = write;
    return true;
  }

  /** What came, and what else can be read at once. */
  protected readOn(first: Buffer): Buffer {
    return first;
  }

  override _read(): void {
    this.#isWanted = true;
    this.#socket?.resume();
  }

  override _write(chunk: Buffer, encoding: string, done: Done): void {
    if (this.hold(() => this._write(chunk, encoding, done))) return;
    this.onSent?.(chunk);
    this.socket.write(chunk, done);
  }

  override _writev(chunks: { chunk: unknown }[], done: Done): void {
    if (this.hold(() => this._writev(chunks, done))) return;
    this.socket.cork();
    chunks.forEach(({ chunk }, index) => {
      this.onSent?.(chunk as Buffer);
      this.socket.write(chunk as Buffer, index === chunks.length - 1 ? done : undefined);
    });
    this.socket.uncork();
  }

  override _final(done: Done): void {
    if (this.#socket === undefined) done();
    else this.#socket.end(done);
  }

  override _destroy(error: Error | null, done: (error: Error | null) => void): void {
    this.#socket?.destroy();
    done(error);
  }
}
