/** A virtio-serial port as a stream that costs few system calls. */
import { readSync } from 'node:fs';
import type { Socket } from 'node:net';
import { Duplex } from 'node:stream';
import { descriptorOf } from './handles.ts';

/** What one read gives at most: a page (`port_fops_read` in Linux's drivers/char/virtio_console.c). */
const PAGE_BYTES = 4096;
/** What is gathered at most before it is passed on. */
const GATHER_BYTES = 64 * 1024;

/**
 * libuv reads once each turn of the event loop, and a read of a port gives a page; so what else has
 * come is read here, before HTTP/2 is bothered with it. And a port knows no vectored writes: each
 * piece would be a write of its own that stops the guest to notify the host; so pieces are joined.
 */
export class PortStream extends Duplex {
  readonly #socket: Socket;

  /** @param socket from `socketFromDevice`; taken over */
  constructor(socket: Socket) {
    super({ allowHalfOpen: false });
    this.#socket = socket;
    socket.on('data', (chunk: Buffer) => {
      // What the socket held back during a pause comes before what is still in the port.
      const more = chunk.length === PAGE_BYTES && socket.readableLength === 0;
      if (!this.push(more ? this.#readOn(chunk) : chunk)) socket.pause();
    });
    socket.pause(); // until somebody reads
    socket.once('end', () => this.push(null));
    socket.once('error', (error) => this.destroy(error));
    socket.once('close', () => this.destroy());
  }

  #readOn(first: Buffer): Buffer {
    const fd = descriptorOf(this.#socket);
    const bytes = Buffer.allocUnsafeSlow(GATHER_BYTES);
    let length = first.copy(bytes);
    try {
      let got = PAGE_BYTES;
      while (got === PAGE_BYTES && length < GATHER_BYTES) {
        got = readSync(fd, bytes, length, PAGE_BYTES, null);
        length += got;
      }
    } catch {
      // EAGAIN: that was all. Anything else meets libuv at its next read.
    }
    return bytes.subarray(0, length);
  }

  override _read(): void {
    this.#socket.resume();
  }

  override _write(chunk: Buffer, _encoding: string, done: (error?: Error | null) => void): void {
    this.#socket.write(chunk, done);
  }

  override _writev(chunks: { chunk: unknown }[], done: (error?: Error | null) => void): void {
    this.#socket.write(Buffer.concat(chunks.map(({ chunk }) => chunk as Buffer)), done);
  }

  override _final(done: () => void): void {
    this.#socket.end(done);
  }

  override _destroy(error: Error | null, done: (error: Error | null) => void): void {
    this.#socket.destroy();
    done(error);
  }
}
