/** One line said to a service on this host, and what it says to it. */
import { connect } from 'node:net';

/** What came until the service hung up, or nobody waited for it any more. */
export interface Answer {
  readonly text: string;
  /** Time was over; its end may be missing. */
  readonly isLate: boolean;
}

/**
 * Never rejects: where nobody listens, or more comes than there may be, `text` has no end. After the signal's
 * abort it is whatever came until then.
 * @param path of the socket
 */
export function askLine(
  path: string,
  line: string,
  o: { timeoutMs: number; signal: AbortSignal | undefined; maxChars: number },
): Promise<Answer> {
  return new Promise((resolve) => {
    const socket = connect(path);
    let text = '';
    let isLate = false;
    const giveUp = () => socket.destroy();
    const timer = setTimeout(
      () => {
        isLate = true;
        giveUp();
      },
      Math.max(1, o.timeoutMs),
    );
    o.signal?.addEventListener('abort', giveUp, { once: true });
    socket.setEncoding('utf8');
    socket.on('error', () => undefined); // told by `close`
    socket.on('data', (chunk: string) => {
      text += chunk;
      if (text.length > o.maxChars) socket.destroy();
    });
    socket.once('close', () => {
      clearTimeout(timer);
      o.signal?.removeEventListener('abort', giveUp);
      resolve({ text, isLate });
    });
    socket.write(`${line}\n`);
  });
}
