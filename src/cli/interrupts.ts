/** SIGINT, SIGTERM and SIGHUP: by default they abort what the command waits for. */

/** Signals that end a program in an orderly way. */
const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;
/** One of them. */
export type EndSignal = (typeof SIGNALS)[number];
/** Told of every signal; `count` is 1 for the first. */
export type SignalHandler = (signal: EndSignal, count: number) => void;

/**
 * Turns signals into an abort of {@link signal}, unless a command has taken them over with
 * {@link take}. The process never ends in a signal handler: whatever is open is closed by the
 * command's own `finally` first.
 */
export class Interrupts {
  readonly #controller = new AbortController();
  readonly #listeners = new Map<EndSignal, () => void>();
  #handler: SignalHandler | undefined;
  #count = 0;
  #received: EndSignal | undefined;

  /** Aborted by the first signal that no command has taken over. */
  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /** The last signal that came in. */
  get received(): EndSignal | undefined {
    return this.#received;
  }

  /** Starts to listen. */
  listen(): void {
    for (const signal of SIGNALS) {
      const listener = (): void => this.#on(signal);
      this.#listeners.set(signal, listener);
      process.on(signal, listener);
    }
  }

  /** Hands all signals to a command; the returned function gives them back. */
  take(handler: SignalHandler): () => void {
    this.#handler = handler;
    return () => {
      if (this.#handler === handler) this.#handler = undefined;
    };
  }

  /** Aborts {@link signal} by hand, as a signal that arrived would. */
  abort(signal: EndSignal): void {
    this.#received = signal;
    this.#controller.abort(new DOMException(`interrupted by ${signal}`, 'AbortError'));
  }

  /** Stops listening: from now on signals have their default effect. */
  close(): void {
    for (const [signal, listener] of this.#listeners) process.off(signal, listener);
    this.#listeners.clear();
  }

  #on(signal: EndSignal): void {
    this.#count += 1;
    this.#received = signal;
    if (this.#handler !== undefined) this.#handler(signal, this.#count);
    else this.abort(signal);
  }
}
