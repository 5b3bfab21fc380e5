/** Following a log for as long as its VM runs. */
import { eitherSignal } from './abort.ts';
import type { BoundedLog } from './bounded-log.ts';

/** Of a timer that does nothing but keep the process alive. */
const HOLD_MS = 60_000;

/** A log from its start, then as it grows, until the signal ends it or the VM has ended. */
export async function* followLog(
  log: BoundedLog,
  ended: Promise<unknown>,
  signal?: AbortSignal,
): AsyncIterable<Buffer> {
  const over = new AbortController();
  void ended.then(() => over.abort());
  // The waits of the log and the watch hold no process open, but whoever follows a log wants to wait.
  const hold = setInterval(() => undefined, HOLD_MS);
  try {
    yield* log.follow({ signal: eitherSignal(over.signal, signal) });
  } finally {
    clearInterval(hold);
  }
}
