/** Sending to a command's stdin, with back-pressure. */
import { once } from 'node:events';
import type { Readable, Writable } from 'node:stream';

/**
 * Writes, and waits for room. What a command that has ended, or closed its stdin, does not read is
 * lost, as with a pipe's reader.
 */
export async function writeAndWait(target: Writable, data: string | Uint8Array): Promise<void> {
  if (target.destroyed || target.write(data)) return;
  const done = new AbortController();
  const room = ['drain', 'close'].map((event) => once(target, event, { signal: done.signal }));
  try {
    await Promise.race(room);
  } finally {
    for (const wait of room) wait.catch(() => undefined);
    done.abort();
  }
}

/**
 * Sends a stream, then EOF. Ends with the command, too, and destroys the stream then.
 * @throws what the stream failed with; no EOF is sent then
 */
export async function sendAll(source: Readable, target: Writable): Promise<void> {
  const stop = () => void source.destroy();
  target.once('close', stop);
  try {
    if (target.destroyed) stop();
    for await (const chunk of source) await writeAndWait(target, chunk as string | Uint8Array);
    target.end();
  } catch (error) {
    if (!target.destroyed) throw error;
  } finally {
    target.off('close', stop);
  }
}
