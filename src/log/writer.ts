/** pino, and what it writes to. Loaded with the first line: most runs write none. */
import { once } from 'node:events';
import { pino, type DestinationStream } from 'pino';
import { prettyFactory } from 'pino-pretty';
import type { SystemEvent } from '../events.ts';
import { levelOf, messageOf } from './levels.ts';

/** How to write. */
export interface WriterOptions {
  readonly format: 'pretty' | 'json';
  /** Appended to; created for its owner alone. Undefined: stderr. */
  readonly file: string | undefined;
  /** Colours, for people only. */
  readonly color: boolean;
}

/** Writes lines, each at once: a process that is killed has lost none. */
export interface Writer {
  write(event: SystemEvent): void;
  close(): Promise<void>;
}

/** File descriptor of stderr. */
const STDERR = 2;

/** Opens the destination. @throws ErrnoException where the file cannot be opened. */
export async function openWriter(o: WriterOptions): Promise<Writer> {
  const sink = pino.destination({
    dest: o.file ?? STDERR,
    append: true,
    mkdir: false,
    sync: true,
    // Transcripts may hold what a command printed.
    mode: 0o600,
  });
  if (o.file !== undefined) await once(sink, 'ready');
  // A stderr whose reader has gone must not take the program with it.
  sink.on('error', () => undefined);
  const destination: DestinationStream = o.format === 'json' ? sink : prettified(sink, o);
  const logger = pino(
    {
      // The threshold has been applied before: see `passes`.
      level: 'trace',
      base: null,
      // The event's own stamp, not the time of writing.
      timestamp: false,
      formatters: { level: (label) => ({ level: label }) },
    },
    destination,
  );
  return {
    write(event) {
      const { time, ...fields } = event;
      logger[levelOf(event.type)]({ time, ...fields }, messageOf(event));
    },
    async close() {
      if (o.file === undefined) return;
      const closed = once(sink, 'close');
      sink.end();
      await closed;
    },
  };
}

/** Formats in this process, line by line: pino-pretty's own stream would write later. */
function prettified(sink: DestinationStream, o: WriterOptions): DestinationStream {
  const format = prettyFactory({
    colorize: o.color,
    translateTime: o.file === undefined ? false : 'SYS:yyyy-mm-dd HH:MM:ss.l',
    // What the message says already, and, on a terminal, the time.
    ignore: `type,code,message,hint,panic,stderr,error${o.file === undefined ? ',time' : ''}`,
    singleLine: true,
  });
  return { write: (line) => void sink.write(format(line)) };
}
