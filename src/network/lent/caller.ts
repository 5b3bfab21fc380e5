/** Who asks for taps on his socket: every byte is taken for hostile. One request a caller, bounded in length and time. */
import type { Socket } from 'node:net';
import { MAX_REQUEST_CHARS, parseRequest, type LoanReply, type LoanRequest } from './loan.ts';

/** From a caller's first byte to its last, and for him to hang up. */
const TIMEOUT_MS = 10_000;

/** What is done with what he says. */
export interface CallerOptions {
  readonly answer: (request: LoanRequest) => Promise<LoanReply>;
  /** He has gone meanwhile, and does not know of it. */
  readonly onUnheard: (reply: LoanReply) => void;
  /** Default 10 s. */
  readonly timeoutMs?: number | undefined;
}

/** Hears one, and replies; `answer` is not to reject. */
export function hearCaller(socket: Socket, o: CallerOptions): void {
  const timeoutMs = o.timeoutMs ?? TIMEOUT_MS;
  let text = '';
  let isAsked = false;
  let deadline = setTimeout(() => socket.destroy(), timeoutMs); // not of silence: he could send byte by byte
  socket.on('error', () => undefined); // told by `close`
  socket.once('close', () => clearTimeout(deadline));
  socket.setEncoding('utf8');
  socket.on('data', (chunk: string) => {
    text += chunk;
    if (isAsked || text.length > MAX_REQUEST_CHARS) return void socket.destroy();
    if (!text.endsWith('\n')) return;
    const request = parseRequest(text);
    if (request === undefined) return void socket.destroy();
    isAsked = true;
    clearTimeout(deadline); // it is our turn, however long that takes
    void o.answer(request).then((reply) => {
      if (socket.destroyed) return o.onUnheard(reply);
      deadline = setTimeout(() => socket.destroy(), timeoutMs);
      socket.end(`${JSON.stringify(reply)}\n`);
    });
  });
}
