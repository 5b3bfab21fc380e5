/** The log: subscribes to the event stream and writes what passes the threshold, by pino. */
import type { LogConfig } from '../config/schema.ts';
import { ConfigError } from '../errors.ts';
import { events as processEvents, type EventStream, type SystemEvent } from '../events.ts';
import { passes } from './levels.ts';
import type { Writer } from './writer.ts';

/** Events kept while the writer is being loaded; later ones are dropped and counted. */
const MAX_PENDING = 10_000;

/** What {@link startLog} goes by besides the configuration. */
export interface LogOptions {
  /** Default: the process-wide stream. */
  readonly events?: EventStream;
  /** Colours in pretty lines on stderr. Default false. */
  readonly color?: boolean;
}

/** A running log. */
export interface Log extends AsyncDisposable {
  /** Writes what is pending and lets go of the file. Idempotent. */
  close(): Promise<void>;
}

/**
 * Subscribes. pino is loaded with the first event that is to be written, so a quiet run pays
 * nothing for it; a log file is opened at once, so that a wrong path fails at once.
 *
 * @throws ConfigError where the log file cannot be opened.
 */
export async function startLog(config: LogConfig, o: LogOptions = {}): Promise<Log> {
  const log = new EventLog(config, o);
  if (config.file !== undefined) await log.open();
  return log;
}

class EventLog implements Log {
  readonly #config: LogConfig;
  readonly #color: boolean;
  readonly #unsubscribe: () => void;
  readonly #pending: SystemEvent[] = [];
  #writer: Writer | undefined;
  #opening: Promise<void> | undefined;
  #closing: Promise<void> | undefined;

  constructor(config: LogConfig, o: LogOptions) {
    this.#config = config;
    this.#color = o.color ?? false;
    const events = o.events ?? processEvents;
    events.enableTraces(config.trace);
    this.#unsubscribe = events.subscribe((event) => this.#take(event));
  }

  /** @throws ConfigError */
  open(): Promise<void> {
    this.#opening ??= this.#open();
    return this.#opening;
  }

  async #open(): Promise<void> {
    const { format, file } = this.#config;
    const { openWriter } = await import('./writer.ts');
    try {
      this.#writer = await openWriter({ format, file, color: this.#color && file === undefined });
    } catch (error) {
      this.#unsubscribe();
      throw new ConfigError(`cannot write to the log file ${file}: ${(error as Error).message}`, {
        field: 'log.file',
        value: file,
        hint: 'give --log-file a file in a directory that exists and that this user can write to',
        cause: error,
      });
    }
    for (const event of this.#pending.splice(0)) this.#writer.write(event);
  }

  #take(event: SystemEvent): void {
    if (!passes(event.type, this.#config.level)) return;
    if (this.#writer !== undefined) {
      this.#writer.write(event);
      return;
    }
    if (this.#pending.length < MAX_PENDING) this.#pending.push(event);
    // A failure to open is thrown by whoever called open(); stderr cannot fail to.
    this.open().catch(() => undefined);
  }

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    this.#unsubscribe();
    await this.#opening?.catch(() => undefined);
    await this.#writer?.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}
