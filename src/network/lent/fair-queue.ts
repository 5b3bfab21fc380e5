/** One piece of work after the other, with nobody in the way of all others. */
import { setTimeout as delay } from 'node:timers/promises';

/** Of one user: who hangs up and asks again would else have us keep as many as he likes. */
export const MAX_PENDING = 64;

/** See above. */
export class FairQueue {
  readonly #paceMs: number;
  #working: Promise<unknown> = Promise.resolve();
  /** By user: the end of what he has asked for last. */
  readonly #turns = new Map<number, Promise<unknown>>();
  /** By user: pieces that are not done. */
  readonly #pending = new Map<number, number>();
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
  async runFor<T>(uid: number, work: () => Promise<T>): Promise<T> {
    const pending = this.#pending.get(uid) ?? 0;
    if (pending >= MAX_PENDING) throw new Error(`${pending} requests of user ${uid} wait already`);
    this.#pending.set(uid, pending + 1);
    const result = (this.#turns.get(uid) ?? Promise.resolve()).then(() => this.run(work));
    const end = result.then(
      () => delay(this.#paceMs),
      () => delay(this.#paceMs),
    );
    this.#turns.set(uid, end);
    void end.then(() => {
      const left = (this.#pending.get(uid) ?? 1) - 1;
      if (left === 0) this.#pending.delete(uid);
      else this.#pending.set(uid, left);
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
