/** Makes VMs: several at a time, and ever less often where it does not work. */
import { availableParallelism } from 'node:os';
import type { Vm } from '../vm/index.ts';
import { backoffMs } from './backoff.ts';
import type { VmSource } from './types.ts';

/** VMs that are made at a time: each keeps a core busy. */
const MAX_MAKING = Math.max(2, availableParallelism());
/** What making a VM takes is assumed to be this, until the first was made. */
const FIRST_LEAD_MS = 1_000;
/** Weight of the latest VM in the time that making one takes. */
const LATEST = 0.3;

/** Told what comes of it. */
export interface RefillListener {
  made(vm: Vm, durationMs: number): void;
  /** None could be made; so many in a row. */
  failed(error: unknown, o: { failures: number; retryMs: number }): void;
  /** One could be made, after so many failures. */
  recovered(failures: number): void;
  /** Time for another attempt: ask again for what is needed now. */
  retry(): void;
}

/** Makes the VMs of one pool. */
export class Refill {
  readonly #source: VmSource;
  readonly #signal: AbortSignal;
  readonly #listener: RefillListener;
  readonly #making = new Set<Promise<void>>();
  #leadMs: number | undefined;
  #failures = 0;
  #lastError: unknown;
  #retry: NodeJS.Timeout | undefined;

  /** @param signal ends it: what is being made is given up */
  constructor(source: VmSource, signal: AbortSignal, listener: RefillListener) {
    this.#source = source;
    this.#signal = signal;
    this.#listener = listener;
  }

  /** VMs on their way up. */
  get making(): number {
    return this.#making.size;
  }

  /** ms that making a VM takes. */
  get leadMs(): number {
    return this.#leadMs ?? FIRST_LEAD_MS;
  }

  /** Why no VM can be made; undefined while they can. */
  get lastError(): unknown {
    return this.#failures > 0 ? this.#lastError : undefined;
  }

  /** Begins as many as may be made at a time, at most `wanted`; while it does not work, one after a pause. */
  begin(wanted: number): void {
    const limit = this.#failures > 0 ? 1 : MAX_MAKING;
    while (wanted > 0 && this.making < limit && !this.#isResting) {
      wanted -= 1;
      const making: Promise<void> = this.#makeOne().then((tell) => {
        this.#making.delete(making);
        tell();
      });
      this.#making.add(making);
    }
  }

  /** Resolves once nothing is being made any more; `signal` has been aborted. */
  async settled(): Promise<void> {
    clearTimeout(this.#retry);
    await Promise.all(this.#making);
  }

  get #isResting(): boolean {
    return this.#retry !== undefined || this.#signal.aborted;
  }

  /** @returns how to tell of it, once it does not count as being made any more */
  async #makeOne(): Promise<() => void> {
    const startedAt = performance.now();
    try {
      const vm = await this.#source.create(this.#signal);
      const durationMs = performance.now() - startedAt;
      const before = this.#leadMs ?? durationMs;
      this.#leadMs = before + (durationMs - before) * LATEST;
      const failures = this.#failures;
      this.#failures = 0;
      return () => {
        if (failures > 0) this.#listener.recovered(failures);
        this.#listener.made(vm, durationMs);
      };
    } catch (error) {
      if (this.#signal.aborted) return () => undefined;
      this.#failures += 1;
      this.#lastError = error;
      const failures = this.#failures;
      const retryMs = backoffMs(failures, Math.random());
      this.#rest(retryMs);
      return () => this.#listener.failed(error, { failures, retryMs });
    }
  }

  #rest(retryMs: number): void {
    clearTimeout(this.#retry);
    this.#retry = setTimeout(() => {
      this.#retry = undefined;
      this.#listener.retry();
    }, retryMs).unref();
  }
}
