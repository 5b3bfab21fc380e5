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
  protected readonly socket: Socket;

  /** @param socket a connected one; taken over */
  constructor(socket: Socket) {
    super({ allowHalfOpen: false });
    this.socket = socket;
    socket.on('data', (chunk: Buffer) => {
      const bytes = this.readOn(chunk);
      this.onReceived?.(bytes);
      if (!this.push(bytes)) socket.pause();
    });
    socket.pause(); // until somebody reads
    socket.once('end', () => this.push(null));
    socket.once('error', (error) => this.destroy(error));
    socket.once('close', () => this.destroy());
  }

  /** What came, and what else can be read at once. */
  protected readOn(first: Buffer): Buffer {
    return first;
  }

  override _read(): void {
    this.socket.resume();
  }

  override _write(chunk: Buffer, _encoding: string, done: Done): void {
    this.onSent?.(chunk);
    this.socket.write(chunk, done);
  }

  override _writev(chunks: { chunk: unknown }[], done: Done): void {
    this.socket.cork();
    chunks.forEach(({ chunk }, index) => {
      this.onSent?.(chunk as Buffer);
      this.socket.write(chunk as Buffer, index === chunks.length - 1 ? done : undefined);
    });
    this.socket.uncork();
  }

  override _final(done: Done): void {
    this.socket.end(done);
  }

  override _destroy(error: Error | null, done: (error: Error | null) => void): void {
    this.socket.destroy();
    done(error);
  }
}
