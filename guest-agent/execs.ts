/** All execs of this guest, running and lately finished. */
import { setTimeout as delay } from 'node:timers/promises';
import { nextExecId } from './exec-ids.ts';
import { Exec } from './exec.ts';
import { freezeExecs, thawExecs } from './freezer.ts';
import type { ProcessTree, ProcessTrees } from './process-tree.ts';
import { LIMITS, type ExecInfo, type ExecSpec } from './protocol.ts';
import { RequestError } from './request-error.ts';
import { planExec, spawnExec, type ExecPlan, type Spawned } from './spawn.ts';
import { StarterStock } from './starter.ts';
import { StdioStock } from './stdio.ts';

/** Between two looks at starts that are under way: some 50 ms each, under emulation. */
const HOLD_POLL_MS = 1;
/** What is given back where all replay buffers together are too large: not only what is too much. */
const REPLAY_SLACK_BYTES = 1024 * 1024;

/** Execs for which all is made ahead of time: for one that follows another at once, too. */
const SPARES = 2;
/** From the end of an exec to the work after it, ms: what the host asks for at once comes first … */
const TIDY_MS = 20;
/** … and from the start of one: most are over by then. */
const TIDY_LATER_MS = 100;
/** So many execs wait for it at most. */
const MAX_UNTIDY = 16;

/** All execs stand still, or are about to. */
interface Hold {
  readonly over: Promise<void>;
  readonly end: () => void;
}

/** The execs belong to the agent, not to a connection. */
export class Execs {
  readonly #running = new Map<string, Exec>();
  /** In the order in which they ended. */
  readonly #finished = new Map<string, Exec>();
  /** Of execs that are forgotten, with background processes that still run. */
  #lingering: ProcessTree[] = [];
  /** Ended, with a tree that is not freed yet. */
  #unreleased: Exec[] = [];
  #tidying: NodeJS.Timeout | undefined;
  readonly #makeTrees: () => ProcessTrees;
  #trees: ProcessTrees | undefined;
  readonly #stdio = new StdioStock();
  readonly #starters = new StarterStock();
  #starting = 0;
  #replayBytes = 0;
  /** Of those whose starter left while all stood still. */
  readonly #left: Exec[] = [];
  /** While all stands still: ends it. */
  #hold: Hold | undefined;
  #parking: Promise<void> | undefined;
  #parkedAt = 0;

  /** @param makeTrees how process trees are kept together; called before the first exec */
  constructor(makeTrees: () => ProcessTrees) {
    this.#makeTrees = makeTrees;
  }

  /** Does ahead of time what the next exec would otherwise wait for. */
  async prepare(): Promise<void> {
    this.#trees ??= this.#makeTrees();
    this.#trees.prepare(SPARES);
    await this.#stdio.prepare(SPARES);
  }

  get runningCount(): number {
    return this.#running.size;
  }

  /**
   * Brings all that execs have started to a stop, until {@link goOn}; what is to be started meanwhile
   * waits.
   * @throws RequestError `ENOSYS`, `EBUSY`: all go on
   */
  async park(): Promise<void> {
    await this.#parking;
    const parking = this.#holdAll().then(() => {
      this.#parkedAt = performance.now();
      return freezeExecs();
    });
    this.#parking = parking.catch(() => undefined);
    try {
      await parking;
    } catch (error) {
      this.#release({ asCopy: false });
      throw error;
    }
  }

  /**
   * Ends {@link park}.
   * @param asCopy this is a copy of the guest: who started an exec was the original's, and is none that
   *   has left
   * @returns how long they stood still, ms of the guest's clock
   */
  async goOn(o: { asCopy: boolean }): Promise<number> {
    await this.#parking; // who gave up on it may ask for this before it is through
    thawExecs();
    const parkedAt = this.#hold === undefined ? undefined : this.#parkedAt;
    this.#release(o);
    return parkedAt === undefined ? 0 : performance.now() - parkedAt;
  }

  /**
   * From now on nothing is started, and nobody who leaves takes his exec with him; resolves when no start
   * is under way any more. Then the processes can be frozen, and none escapes.
   */
  async #holdAll(): Promise<void> {
    if (this.#hold === undefined) {
      let end: () => void = () => undefined;
      const over = new Promise<void>((resolve) => (end = resolve));
      this.#hold = { over, end };
    }
    while (this.#starting > 0) await delay(HOLD_POLL_MS);
  }

  #release({ asCopy }: { asCopy: boolean }): void {
    const hold = this.#hold;
    if (hold === undefined) return;
    this.#hold = undefined;
    if (asCopy) for (const exec of this.#running.values()) exec.keep();
    for (const exec of this.#left.splice(0)) exec.starterGone();
    hold.end();
  }

  /** The stream that started an exec broke off. */
  starterGone(exec: Exec): void {
    if (this.#hold === undefined) exec.starterGone();
    else this.#left.push(exec);
  }

  /** Resolves when nothing is held. */
  async unheld(): Promise<void> {
    while (this.#hold !== undefined) await this.#hold.over;
  }

  /** Waits where all is held. @throws RequestError */
  async start(spec: ExecSpec): Promise<Exec> {
    while (this.#hold !== undefined) await this.#hold.over; // and not a turn between that and this
    if (this.#running.size + this.#starting >= LIMITS.execs) {
      throw new RequestError('EAGAIN', `${LIMITS.execs} execs run already`, 429);
    }
    this.#starting += 1;
    if (this.#tidying !== undefined) this.#tidyIn(TIDY_LATER_MS);
    const id = nextExecId();
    try {
      const plan = planExec(spec);
      const spawned = this.#starters.take(plan) ?? (await this.#spawn(id, plan));
      const exec = new Exec(
        id,
        { spec, plan, spawned },
        {
          onReplaySize: (change) => this.#replaySize(change),
          onFinished: (ended) => this.#ended(ended),
        },
      );
      this.#running.set(id, exec);
      return exec;
    } finally {
      this.#starting -= 1;
    }
  }

  async #spawn(id: string, plan: ExecPlan): Promise<Spawned> {
    const tree = this.#makeTree(id);
    try {
      return await spawnExec(plan, tree, () => this.#stdio.take(plan.stdin));
    } catch (error) {
      tree.release();
      throw error;
    }
  }

  #makeTree(id: string): ProcessTree {
    return (this.#trees ??= this.#makeTrees()).create(id);
  }

  /** @throws RequestError `ENOEXEC_ID` with status 404 */
  get(id: string): Exec {
    const exec = this.#running.get(id) ?? this.#finished.get(id);
    if (!exec) throw new RequestError('ENOEXEC_ID', `no exec ${id}`, 404);
    return exec;
  }

  list(): ExecInfo[] {
    return [...this.#finished.values(), ...this.#running.values()].map((exec) => exec.info());
  }

  #ended(exec: Exec): void {
    this.#running.delete(exec.id);
    this.#finished.set(exec.id, exec);
    this.#unreleased.push(exec);
    this.#tidyIn(TIDY_MS);
    setImmediate(() => this.#forgetOldest());
  }

  #tidyIn(ms: number): void {
    if (this.#tidying !== undefined && this.#unreleased.length >= MAX_UNTIDY) return;
    clearTimeout(this.#tidying);
    this.#tidying = setTimeout(() => this.#tidy(), ms);
  }

  /** Off the path of the exec that just ended, and of what the host asks for next. */
  #tidy(): void {
    this.#tidying = undefined;
    for (const exec of this.#unreleased.splice(0)) exec.release();
    this.#lingering = this.#lingering.filter((tree) => !tree.release());
    this.#prepareNext().catch(() => undefined); // the next exec tries again, and says what is wrong
  }

  /** After an exec, which says what the next will be like. */
  async #prepareNext(): Promise<void> {
    await this.#starters.prepare(
      async () => {
        const stdio = await this.#stdio.take(true);
        if (this.#hold === undefined) return { stdio, tree: this.#makeTree(nextExecId()) };
        stdio.abandon(); // nothing is started while all stands still
        return undefined;
      },
      (tree) => this.#lingering.push(tree),
    );
    await this.prepare();
  }

  #forgetOldest(): void {
    for (const [id, oldest] of this.#finished) {
      if (this.#finished.size <= LIMITS.finishedExecs) return;
      this.#finished.delete(id);
      const tree = oldest.forget();
      if (tree) this.#lingering.push(tree);
    }
  }

  /** Those that ended first give way first, then the largest that run. */
  #replaySize(change: number): void {
    this.#replayBytes += change;
    if (change <= 0 || this.#replayBytes <= LIMITS.totalReplayBytes) return;
    for (const exec of this.#finished.values()) {
      exec.replay.trim(0);
      if (this.#replayBytes <= LIMITS.totalReplayBytes) return;
    }
    const excess = this.#replayBytes - LIMITS.totalReplayBytes + REPLAY_SLACK_BYTES;
    const bySize = [...this.#running.values()].sort((a, b) => b.replay.size - a.replay.size);
    let left = excess;
    for (const { replay } of bySize) {
      if (left <= 0) return;
      const before = replay.size;
      replay.trim(Math.max(0, before - left));
      left -= before - replay.size;
    }
  }
}
