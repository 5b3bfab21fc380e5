/** A request's body into the stdin of a process. */
import type { ServerHttp2Stream } from 'node:http2';
import type { Writable } from 'node:stream';

/** So much is written at once where it comes fast. */
const GATHER_BYTES = 64 * 1024;

/**
 * Passes a request's body to a process; what the process no longer reads is dropped.
 *
 * A virtio-serial port gives 4 KiB with each read (a page: Linux's drivers/char/virtio_console.c), one
 * each turn of the event loop. To wake the process for each would cost more than all else together; so
 * as long as every turn brings more, it is gathered. The first turn that does not lets it go.
 */
export function feed(
  stream: ServerHttp2Stream,
  stdin: Writable,
  first: Buffer,
  eof: boolean,
): void {
  let gathered = 0;
  let cameThisTurn = false;
  const release = () => {
    if (gathered === 0) return;
    gathered = 0;
    stdin.uncork();
    if (stdin.writableNeedDrain) stream.pause();
  };
  const look = () => {
    if (gathered === 0) return;
    if (!cameThisTurn) release();
    cameThisTurn = false;
    if (gathered > 0) setImmediate(look);
  };
  const pass = (chunk: Buffer) => {
    if (!stdin.writable || chunk.length === 0) return;
    if (gathered === 0) {
      stdin.cork();
      setImmediate(look);
    }
    cameThisTurn = true;
    gathered += chunk.length;
    stdin.write(chunk);
    if (gathered >= GATHER_BYTES) release();
  };
  const resume = () => stream.resume();
  stdin.on('drain', resume);
  stdin.once('close', resume);
  stream.on('data', pass);
  stream.resume(); // it was paused on purpose, so a listener alone does not start it
  pass(first);
  stream.once('end', () => {
    release();
    // A stream that broke off ends, too; but its exec may be taken up again by somebody else.
    if (eof && !stream.aborted && !stream.rstCode) stdin.end();
  });
  stream.once('close', () => {
    release();
    stdin.off('drain', resume);
    stdin.off('close', resume);
  });
}
