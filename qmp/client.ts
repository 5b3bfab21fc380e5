import type { Socket } from 'node:net';
import {
  QmpCommandError,
  QmpConnectError,
  QmpError,
  QmpInterruptedError,
  QmpProtocolError,
  TimeoutError,
} from '../src/errors.ts';
import { assertSomeKnown, availabilityHint } from './availability.ts';
import type { Call, Reply } from './call-table.ts';
import { CallTable } from './call-table.ts';
import { armDeadline } from './deadline.ts';
import type { WaitOptions } from './deadline.ts';
import { EventHub, EventIterator, closedByUs } from './event-hub.ts';
import { nextEvent } from './event-wait.ts';
import { runJob } from './jobs.ts';
import { DEFAULT_CALL_TIMEOUT_MS, DEFAULT_CONNECT_TIMEOUT_MS } from './limits.ts';
import { LineFramer } from './line-framer.ts';
import type { QemuVersion, RawEvent } from './messages.ts';
import { encodeCommand } from './messages.ts';
import { Session } from './session.ts';
import { BUSY_HINT, connectSocket } from './socket.ts';
import type {
  ExecuteOptions,
  ExecuteParameters,
  QmpCommandName,
  QmpEventName,
  QmpEventOf,
  QmpReturn,
} from './types.ts';

/** How to reach a QEMU. */
export interface QmpConnectOptions {
  /** The unix socket of a QMP monitor. */
  path: string;
  /** Milliseconds for connection, greeting and negotiation together. Default 5000. */
  timeoutMs?: number | undefined;
  /** Ends the attempt; it then rejects with `signal.reason`. */
  signal?: AbortSignal | undefined;
  /** Longest line taken from QEMU, in bytes. Default 16 MiB. */
  maxLineBytes?: number | undefined;
  /** Is shown every line, without its line end. For transcripts: arguments may hold secrets. */
  onLine?: ((direction: 'in' | 'out', line: string) => void) | undefined;
}

/** Which events to give, and until when. */
export interface QmpEventsOptions<E extends QmpEventName = QmpEventName> {
  /** Only these; all where left out. */
  names?: readonly E[] | undefined;
  /** Ends the iteration with `signal.reason`. */
  signal?: AbortSignal | undefined;
  /** Events held for a reader that does not keep up. Default 1024. */
  maxQueued?: number | undefined;
}

/** Which event to wait for, and how long. */
export interface WaitForEventOptions<E extends QmpEventName> extends WaitOptions {
  /** Takes the event where it gives true. Default: the first. */
  match?: ((event: QmpEventOf<E>) => boolean) | undefined;
}

/**
 * A QMP session over a unix socket. {@link QmpClient.connect} gives a negotiated one; who calls it
 * owns it and closes it.
 *
 * Numbers: QMP has 64-bit integers; those beyond 2^53 lose their last digits in JSON.parse.
 */
export class QmpClient implements AsyncDisposable {
  readonly #socket: Socket;
  readonly #options: QmpConnectOptions;
  readonly #framer: LineFramer;
  readonly #session: Session;
  readonly #calls: CallTable;
  readonly #hub = new EventHub();
  #greeting: { version: QemuVersion; capabilities: readonly string[] } | undefined;
  #greeted: () => void = () => undefined;
  #nextId = 1;
  /** Set once the session is over; `error` is undefined after the client's own close(). */
  #over: { error: Error | undefined } | undefined;
  #resolveClosed: (error: Error | undefined) => void = () => undefined;
  #closing: Promise<void> | undefined;

  /** Resolves, and never rejects, when the connection is gone; with undefined after `close()`. */
  readonly closed: Promise<Error | undefined>;

  private constructor(socket: Socket, options: QmpConnectOptions) {
    this.#socket = socket;
    this.#options = options;
    this.#framer = new LineFramer(options.maxLineBytes);
    this.#calls = new CallTable((line) => {
      this.#send(line);
    });
    this.#session = new Session({
      onGreeting: (version, capabilities) => {
        this.#greeting = { version, capabilities };
        this.#greeted();
      },
      onReply: (message) => {
        this.#calls.settle(
          message.id,
          message.kind === 'return'
            ? { ok: true, value: message.value }
            : { ok: false, ...message },
        );
      },
      onEvent: (event) => {
        this.#hub.publish(event);
      },
    });
    this.closed = new Promise((resolve) => {
      this.#resolveClosed = resolve;
    });
    this.#listen();
  }

  /**
   * Connects, awaits the greeting and negotiates: `oob` is enabled where QEMU offers it.
   *
   * QEMU greets before it has set up its machine. Where that fails later, the connection ends, and
   * QEMU's stderr says why.
   *
   * @throws HostError (ERR_HOST_SOCKET) where the path is too long; QmpConnectError where nobody
   * greets in time; QmpProtocolError where it is not QMP; QmpCommandError where QEMU refuses the
   * negotiation; `signal.reason`.
   */
  static async connect(options: QmpConnectOptions): Promise<QmpClient> {
    const { path, signal, timeoutMs = DEFAULT_CONNECT_TIMEOUT_MS } = options;
    signal?.throwIfAborted();
    const deadline = performance.now() + timeoutMs;
    const left = (): WaitOptions => ({
      signal,
      timeoutMs: Math.max(0, deadline - performance.now()),
    });
    let client: QmpClient | undefined;
    try {
      client = await connectSocket(path, left(), (socket) => new QmpClient(socket, options));
      await client.#awaitGreeting(left());
      await client.execute(
        'qmp_capabilities',
        { enable: client.oobEnabled ? ['oob'] : [] },
        left(),
      );
      return client;
    } catch (error) {
      await client?.close();
      // Where the session ended under qmp_capabilities, why it ended is what counts.
      const reason = error instanceof QmpInterruptedError && error.cause;
      if (reason instanceof QmpError) throw reason;
      if (error === signal?.reason || !(error instanceof TimeoutError)) throw error;
      const missing = client && client.#greeting ? 'no answer to qmp_capabilities' : 'no greeting';
      throw new QmpConnectError(`QMP socket ${path}: ${missing} within ${timeoutMs} ms`, {
        cause: error,
        hint: BUSY_HINT,
      });
    }
  }

  /** QEMU's version. */
  get version(): QemuVersion {
    // connect() gives no client out before the greeting came.
    return this.#greeting?.version ?? { major: 0, minor: 0, micro: 0, package: '' };
  }

  /** Whether out-of-band execution is on. */
  get oobEnabled(): boolean {
    return this.#greeting?.capabilities.includes('oob') ?? false;
  }

  /**
   * Runs a command. Any number may be called at once: up to 8 are in flight, the rest wait.
   *
   * Where the call is given up (signal, timeout) QEMU may still carry it out; the late answer is
   * dropped.
   *
   * @throws QmpCommandError where QEMU refuses; QmpInterruptedError where the connection ends
   * first; TimeoutError (default 60 s); `signal.reason`.
   */
  async execute<C extends QmpCommandName>(
    command: C,
    ...[args, options]: ExecuteParameters<C>
  ): Promise<QmpReturn<C>> {
    return await this.executeRaw(command, args, options);
  }

  /** As {@link execute}, for commands that are not known when this is compiled. */
  executeRaw(command: string, args?: object, options: ExecuteOptions = {}): Promise<unknown> {
    const { oob = false, signal, timeoutMs = DEFAULT_CALL_TIMEOUT_MS } = options;
    return new Promise((resolve, reject) => {
      signal?.throwIfAborted();
      if (this.#over) throw this.#interruption(`QMP ${command}`);
      if (oob && !this.oobEnabled) {
        throw new QmpProtocolError(`QMP ${command}: this QEMU offers no out-of-band execution`, {
          hint: 'Run the command in band.',
        });
      }
      const id = `q${this.#nextId++}`;
      let disarm = (): void => undefined;
      const call: Call = {
        id,
        oob,
        line: encodeCommand(command, args, id, oob),
        onReply: (reply) => {
          disarm();
          if (reply.ok) resolve(reply.value);
          else reject(this.#refusal(command, reply));
        },
        onFailure: () => {
          disarm();
          reject(this.#interruption(`QMP ${command}`));
        },
      };
      this.#calls.start(call);
      const hint = 'Raise timeoutMs for a command that takes long; else QEMU may hang.';
      disarm = armDeadline(`QMP ${command}`, { signal, timeoutMs }, hint, (reason) => {
        this.#calls.abandon(call);
        // eslint-disable-next-line @typescript-eslint/prefer-promise-reject-errors -- signal.reason may be anything
        reject(reason);
      });
    });
  }

  /**
   * Events from this call on (not from the first `next()`), in order. Leave the loop, call
   * `return()` or abort when done: until then up to `maxQueued` events are held.
   *
   * The iteration ends quietly after the client's own `close()`. It throws QmpInterruptedError
   * where the connection ends otherwise, QmpProtocolError where events overrun the reader, and
   * `signal.reason`.
   */
  events<E extends QmpEventName = QmpEventName>(
    options: QmpEventsOptions<E> = {},
  ): AsyncIterableIterator<QmpEventOf<E>, undefined> {
    const events: AsyncIterableIterator<RawEvent, undefined> = new EventIterator(
      this.#hub,
      options,
    );
    return events as AsyncIterableIterator<QmpEventOf<E>, undefined>;
  }

  /**
   * Waits for an event that comes after this call: call it before the command that causes the
   * event, and await it after. Without `timeoutMs` it waits as long as the connection lasts.
   *
   * @throws QmpInterruptedError where the connection ends first; TimeoutError; `signal.reason`;
   * QmpProtocolError where this version of QEMU has no such event.
   */
  waitForEvent<E extends QmpEventName>(
    name: E | readonly E[],
    { match, signal, timeoutMs }: WaitForEventOptions<E> = {},
  ): Promise<QmpEventOf<E>> {
    const names: readonly string[] = typeof name === 'string' ? [name] : name;
    const operation = `QMP event ${names.join(' or ')}`;
    const takes = (event: RawEvent): boolean =>
      names.includes(event.event) && (match?.(event as QmpEventOf<E>) ?? true);
    const wait = async (): Promise<QmpEventOf<E>> => {
      signal?.throwIfAborted();
      assertSomeKnown(names, this.version);
      const lost = (): Error => this.#interruption(operation);
      const event = await nextEvent(this.#hub, takes, { operation, signal, timeoutMs, lost });
      return event as QmpEventOf<E>;
    };
    const event = wait();
    // Where the command that should cause the event fails, nobody comes to await this any more.
    event.catch(() => undefined);
    return event;
  }

  /**
   * Runs a QEMU job to its end and dismisses it. `start` is given a fresh job id, and starts the
   * job with it (`blockdev-create`, `snapshot-save`, `blockdev-backup` with
   * `auto-dismiss: false`, …).
   *
   * Without `timeoutMs` it takes as long as the job does.
   *
   * @throws QmpJobError where the job ends with an error; what `start` throws; where the signal
   * aborts or the time is up, `signal.reason` or TimeoutError, after the job was cancelled and
   * dismissed, for which it is given up to 10 s more.
   */
  runJob(start: (jobId: string) => Promise<unknown>, options: WaitOptions = {}): Promise<void> {
    return runJob(this, start, options);
  }

  /** Ends the session. What is pending rejects; iterators end quietly. Idempotent; never rejects. */
  close(): Promise<void> {
    this.#closing ??= new Promise((resolve) => {
      if (this.#socket.closed) resolve();
      else
        this.#socket.once('close', () => {
          resolve();
        });
      this.#end(undefined);
    });
    return this.#closing;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #listen(): void {
    this.#socket.on('data', (chunk) => {
      try {
        for (const line of this.#framer.push(chunk)) {
          this.#trace('in', line);
          this.#session.receive(line);
        }
      } catch (error) {
        this.#end(error as Error);
      }
    });
    this.#socket.on('error', (cause) => {
      this.#end(this.#lost(cause.message, cause));
    });
    this.#socket.on('close', () => {
      const how = this.#framer.midLine ? 'closed in the middle of a line' : 'closed by QEMU';
      this.#end(this.#lost(how));
    });
  }

  #awaitGreeting(wait: WaitOptions): Promise<void> {
    return new Promise((resolve, reject) => {
      const disarm = armDeadline('QMP greeting', wait, BUSY_HINT, reject);
      this.#greeted = () => {
        disarm();
        resolve();
      };
      void this.closed.then((error) => {
        disarm();
        reject(error ?? closedByUs('QMP greeting'));
      });
    });
  }

  #send(line: string): void {
    this.#trace('out', line);
    this.#socket.write(`${line}\n`);
  }

  #trace(direction: 'in' | 'out', line: string): void {
    try {
      this.#options.onLine?.(direction, line);
    } catch (error) {
      // A transcript that cannot be written is its writer's bug, and no reason to lose the session.
      process.emitWarning(error instanceof Error ? error : String(error));
    }
  }

  #end(error: Error | undefined): void {
    if (this.#over) return;
    this.#over = { error };
    this.#session.end();
    this.#socket.destroy();
    this.#calls.failAll();
    this.#hub.end(error);
    this.#resolveClosed(error);
  }

  #lost(how: string, cause?: unknown): Error {
    const { path } = this.#options;
    if (this.#session.state === 'ready') {
      const hint = "Look at QEMU's stderr (qemu.log): it ended, or dropped this monitor.";
      return new QmpInterruptedError(`QMP connection to ${path} lost: ${how}`, { cause, hint });
    }
    const hint = "Look at QEMU's stderr: it ended while it set up its machine, or is no QEMU.";
    return new QmpConnectError(`QMP connection to ${path} lost before it was ready: ${how}`, {
      cause,
      hint,
    });
  }

  /** The error of one call or wait, made anew so that its stack tells who waited. */
  #interruption(what: string): Error {
    const error = this.#over?.error;
    if (error === undefined) return closedByUs(what);
    return new QmpInterruptedError(`${what}: ${error.message}`, {
      cause: error,
      hint: error instanceof QmpInterruptedError ? error.hint : undefined,
    });
  }

  #refusal(command: string, reply: Reply & { ok: false }): Error {
    const hint = availabilityHint(command, reply, this.version);
    return new QmpCommandError(command, { class: reply.errorClass, desc: reply.desc }, { hint });
  }
}
