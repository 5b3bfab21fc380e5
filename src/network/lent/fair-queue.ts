/** One piece of work after the other, with nobody in the way of all others. */
import { setTimeout as delay } from 'node:timers/promises';

/** See above. */
export class FairQueue {
  readonly #paceMs: number;
  #working: Promise<unknown> = Promise.resolve();
  /** By user: the end of what he has asked for last. */
  readonly #turns = new Map<number, Promise<unknown>>();
  #isClosed = false;

  /** @param paceMs between two pieces of one user */
  constructor(paceMs: number) {
    this.#paceMs = paceMs;
  }

  /** @throws what `work` throws; Error it is closed */
  run<T>(work: () => Promise<T>): Promise<T> {
    const result = this.#working.then(() => {
      if (this.#isClosed) throw new Error('no more is begun');
      return work();
    });
    this.#working = result.catch(() => undefined);
    return result;
  }

  /** The same for a user, whose pieces stand behind each other: nobody waits for more than one of each other user. */
  runFor<T>(uid: number, work: () => Promise<T>): Promise<T> {
    const result = (this.#turns.get(uid) ?? Promise.resolve()).then(() => this.run(work));
    const end = result.then(
      () => delay(this.#paceMs),
      () => delay(this.#paceMs),
    );
    this.#turns.set(uid, end);
    void end.then(() => {
      if (this.#turns.get(uid) === end) this.#turns.delete(uid);
    });
    return result;
  }

  /** Begins nothing more. Resolves when what was begun is done. */
  async close(): Promise<void> {
    this.#isClosed = true;
    await this.#working;
  }
}
