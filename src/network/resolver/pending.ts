/**
 * How many queries of all clients may wait at once. When that is reached, each client still has a few
 * places of its own: the ones that fill the house do not shut it to the others.
 */
const FAIR_SHARE = 8;

export class PendingGate {
  readonly #limit: number;
  #pending = 0;

  constructor(limit: number) {
    this.#limit = limit;
  }

  /**
   * Takes a place; {@link leave} gives it back.
   *
   * @param own places that the client has already
   * @returns false where there is none
   */
  enter(own: number): boolean {
    if (this.#pending >= this.#limit && own >= FAIR_SHARE) return false;
    this.#pending += 1;
    return true;
  }

  leave(): void {
    this.#pending -= 1;
  }
}
