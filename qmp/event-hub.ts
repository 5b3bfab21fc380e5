import { QmpInterruptedError, QmpProtocolError } from '../src/errors.ts';
import { MAX_QUEUED_EVENTS } from './limits.ts';
import type { RawEvent } from './messages.ts';

/** What an {@link EventIterator} is told from outside. */
export interface EventListener {
  onEvent(event: RawEvent): void;
  /** The connection is gone; undefined after the client's own `close()`. */
  onEnd(error: Error | undefined): void;
}

/** Hands each event to everyone who listens. */
export class EventHub {
  readonly #listeners = new Set<EventListener>();
  /** Set once the connection is gone. */
  #ended: { error: Error | undefined } | undefined;

  /** Adds a listener; after the end it hears only of the end, at once. Gives its remover. */
  listen(listener: EventListener): () => void {
    if (this.#ended) {
      listener.onEnd(this.#ended.error);
      return () => undefined;
    }
    this.#listeners.add(listener);
    return () => {
      this.#listeners.delete(listener);
    };
  }

  publish(event: RawEvent): void {
    for (const listener of [...this.#listeners]) listener.onEvent(event);
  }

  end(error: Error | undefined): void {
    if (this.#ended) return;
    this.#ended = { error };
    const listeners = [...this.#listeners];
    this.#listeners.clear();
    for (const listener of listeners) listener.onEnd(error);
  }
}

/** Which events an iterator gives, and until when. */
export interface EventIteratorOptions {
  /** Only these; all where left out. */
  names?: readonly string[] | undefined;
  /** Ends the iteration with an error: `signal.reason`. */
  signal?: AbortSignal | undefined;
  /** Default {@link MAX_QUEUED_EVENTS}. */
  maxQueued?: number | undefined;
}

interface Waiter {
  resolve(result: IteratorResult<RawEvent, undefined>): void;
  reject(error: unknown): void;
}

const DONE = { done: true, value: undefined } as const;

/**
 * Events as they come, from the moment of its construction on, in order. It ends quietly after
 * `return()` (a `break` out of `for await`) and after the client's own `close()`; otherwise it
 * ends with an error, once the events received until then were taken.
 */
export class EventIterator implements AsyncIterableIterator<RawEvent, undefined>, EventListener {
  readonly #names: ReadonlySet<string> | undefined;
  readonly #maxQueued: number;
  readonly #queue: RawEvent[] = [];
  readonly #waiters: Waiter[] = [];
  #end: { error: unknown } | undefined;
  readonly #release: () => void;

  constructor(hub: EventHub, { names, signal, maxQueued }: EventIteratorOptions) {
    this.#names = names && new Set(names);
    this.#maxQueued = maxQueued ?? MAX_QUEUED_EVENTS;
    const onAbort = (): void => {
      this.#finish(signal?.reason);
    };
    // The hub may call onEnd at once, when #release is not yet set; hence the order.
    let unlisten = (): void => undefined;
    this.#release = () => {
      unlisten();
      signal?.removeEventListener('abort', onAbort);
    };
    if (signal?.aborted) {
      onAbort();
      return;
    }
    signal?.addEventListener('abort', onAbort, { once: true });
    unlisten = hub.listen(this);
  }

  onEvent(event: RawEvent): void {
    if (this.#names && !this.#names.has(event.event)) return;
    const waiter = this.#waiters.shift();
    if (waiter) {
      waiter.resolve({ done: false, value: event });
    } else if (this.#queue.length < this.#maxQueued) {
      this.#queue.push(event);
    } else {
      this.#finish(
        new QmpProtocolError(
          `QMP events overran their reader: ${this.#maxQueued} wait unread, and ${event.event} came`,
          { hint: 'Read events faster, ask only for those needed (names), or raise maxQueued.' },
        ),
      );
    }
  }

  onEnd(error: Error | undefined): void {
    this.#finish(error);
  }

  next(): Promise<IteratorResult<RawEvent, undefined>> {
    const event = this.#queue.shift();
    if (event) return Promise.resolve({ done: false, value: event });
    if (this.#end) {
      const { error } = this.#end;
      // As with generators: the error comes once, then the iterator is done.
      this.#end = { error: undefined };
      // eslint-disable-next-line @typescript-eslint/prefer-promise-reject-errors -- signal.reason may be anything
      return error === undefined ? Promise.resolve(DONE) : Promise.reject(error);
    }
    return new Promise((resolve, reject) => {
      this.#waiters.push({ resolve, reject });
    });
  }

  return(): Promise<IteratorResult<RawEvent, undefined>> {
    this.#queue.length = 0;
    if (this.#end) this.#end = { error: undefined };
    else this.#finish(undefined);
    return Promise.resolve(DONE);
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  #finish(error: unknown): void {
    if (this.#end) return;
    this.#release();
    const [first, ...rest] = this.#waiters.splice(0);
    this.#end = { error: first ? undefined : error };
    if (error === undefined) first?.resolve(DONE);
    else first?.reject(error);
    for (const waiter of rest) waiter.resolve(DONE);
  }
}

/** Why an iterator or a wait ended with the client's own `close()`. */
export function closedByUs(what: string): QmpInterruptedError {
  return new QmpInterruptedError(`${what}: the QMP client was closed`, {
    hint: 'Await what is pending before you close the client.',
  });
}
