/** How many VMs should stand ready, from what was asked for lately. Pure: the time is an argument. */

/** Most changes that are remembered; of older ones only the sum matters. */
const MAX_CHANGES = 2_048;

/** VMs that went out (-1) or came back (+1) at a time. */
interface Change {
  readonly atMs: number;
  readonly by: 1 | -1;
}

/**
 * The supply of a pool over time, as its users move it: a VM that goes out lowers it, one that comes
 * back from them raises it; VMs newly made do not count, as they are what is decided here.
 *
 * What should stand ready is the largest *net* outflow within the time that it takes to make a VM: who
 * had that many ready before would not have let anybody wait. A burst of five thus asks for five, a
 * steady stream of single users whose VMs come back asks for one, and one whose VMs do not come back for
 * as many as are used up while the next one is made (Little's law).
 */
export class Demand {
  readonly #horizonMs: number;
  #changes: Change[] = [];

  /** @param horizonMs how long a burst is remembered */
  constructor(horizonMs: number) {
    this.#horizonMs = horizonMs;
  }

  /** Somebody asked for a VM. */
  out(nowMs: number): void {
    this.#add({ atMs: nowMs, by: -1 });
  }

  /** A VM is ready again after use; or somebody gave up waiting. */
  back(nowMs: number): void {
    this.#add({ atMs: nowMs, by: 1 });
  }

  /** How many should stand ready, where making one takes `leadMs`. */
  spares(nowMs: number, leadMs: number): number {
    this.#changes = this.#changes.filter(({ atMs }) => atMs > nowMs - this.#horizonMs);
    return largestFall(this.#changes, leadMs);
  }

  #add(change: Change): void {
    this.#changes.push(change);
    if (this.#changes.length > MAX_CHANGES) this.#changes.splice(0, MAX_CHANGES / 2);
  }
}

/** The largest fall of a sum of changes within any span of `spanMs`: a sliding-window maximum. */
function largestFall(changes: readonly Change[], spanMs: number): number {
  /** Levels that may be a maximum yet, highest first, with the time until which each held. */
  const highs: { level: number; untilMs: number }[] = [];
  let level = 0;
  let fall = 0;
  for (const { atMs, by } of changes) {
    while ((highs.at(-1)?.level ?? Infinity) <= level) highs.pop();
    highs.push({ level, untilMs: atMs });
    while ((highs[0] as { untilMs: number }).untilMs < atMs - spanMs) highs.shift();
    level += by;
    fall = Math.max(fall, (highs[0] as { level: number }).level - level);
  }
  return fall;
}
