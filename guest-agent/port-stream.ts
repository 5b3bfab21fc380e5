/** A virtio-serial port as a stream that costs few system calls. */
import { readSync } from 'node:fs';
import { descriptorOf } from './handles.ts';
import { SocketDuplex, type Done } from './socket-duplex.ts';

/** What one read gives at most: a page (`port_fops_read` in Linux's drivers/char/virtio_console.c). */
const PAGE_BYTES = 4096;
/** What is gathered at most before it is passed on. */
const GATHER_BYTES = 64 * 1024;

/**
 * libuv reads once each turn of the event loop, and a read of a port gives a page; so what else has
 * come is read here, before HTTP/2 is bothered with it. And a port knows no vectored writes: each
 * piece would be a write of its own that stops the guest to notify the host; so pieces are joined.
 */
export class PortStream extends SocketDuplex {
  protected override readOn(first: Buffer): Buffer {
    // What the socket held back during a pause comes before what is still in the port.
    if (first.length < PAGE_BYTES || this.socket.readableLength > 0) return first;
    const fd = descriptorOf(this.socket);
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

  override _writev(chunks: { chunk: unknown }[], done: Done): void {
    if (this.hold(() => this._writev(chunks, done))) return;
    const bytes = Buffer.concat(chunks.map(({ chunk }) => chunk as Buffer));
    this.onSent?.(bytes);
    this.socket.write(bytes, done);
  }
}
