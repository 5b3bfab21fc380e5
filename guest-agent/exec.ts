/** One exec: its processes, what is kept of its output, and who listens. */
import type { Readable, Writable } from 'node:stream';
import { FRAME } from './frames.ts';
import type { ProcessTree } from './process-tree.ts';
import { DEFAULT_REPLAY_BYTES, type ExecExit, type ExecInfo, type ExecSpec } from './protocol.ts';
import { ReplayBuffer } from './replay.ts';
import type { ExecPlan, Spawned } from './spawn.ts';

/** Who gets an exec's output as it comes. */
export interface Subscriber {
  /** Takes output; false where it has enough for now and will call {@link Exec.resume}. */
  output(type: 2 | 3, data: Buffer): boolean;
  /** The exec is over; nothing follows. */
  finished(exit: ExecExit): void;
}

/**
 * After the first process ended, its output is complete once both pipes are. A process it left in the
 * background may hold them open for ever, so that silence of this length ends the wait …
 */
export const DRAIN_SILENCE_MS = 100;
/** … and so does more output than the pipes could hold when it ended. */
export const DRAIN_BYTES = 4 * 1024 * 1024;

/** What an exec needs of the agent around it. */
export interface ExecContext {
  /** The replay buffer takes so many bytes more, or less where it is negative. */
  readonly onReplaySize: (change: number) => void;
  readonly onFinished: (exec: Exec) => void;
}

/** An exec, from its start until it is forgotten. */
export class Exec {
  readonly id: string;
  readonly #spawned: Spawned;
  readonly #plan: ExecPlan;
  readonly #spec: ExecSpec;
  readonly #replay: ReplayBuffer;
  readonly #subscribers = new Set<Subscriber>();
  readonly #blocked = new Set<Subscriber>();
  readonly #startedAtMs = Date.now();
  readonly #startedAt = performance.now();
  readonly #open = new Set<Readable>();
  #timeout: NodeJS.Timeout | undefined;
  #silence: NodeJS.Timeout | undefined;
  #drainedBytes = 0;
  #ended: ExecExit | undefined;
  #exit: ExecExit | undefined;
  #timedOut = false;
  #isKept: boolean;
  readonly #onFinished: (exec: Exec) => void;

  /** Call in the turn in which the process was spawned: its end is an event. */
  constructor(
    id: string,
    { spec, plan, spawned }: { spec: ExecSpec; plan: ExecPlan; spawned: Spawned },
    context: ExecContext,
  ) {
    this.id = id;
    this.#spec = spec;
    this.#plan = plan;
    this.#isKept = spec.onDisconnect !== 'kill';
    this.#spawned = spawned;
    this.#onFinished = context.onFinished;
    this.#replay = new ReplayBuffer(spec.replayBytes ?? DEFAULT_REPLAY_BYTES, context.onReplaySize);
    this.#read(spawned.stdout, FRAME.stdout);
    this.#read(spawned.stderr, FRAME.stderr);
    spawned.child.once('exit', (code, signal) => this.#processEnded(code, signal));
    spawned.stdin?.on('error', () => undefined); // EPIPE: the process closed its end
    if (spec.timeoutMs !== undefined) {
      this.#timeout = setTimeout(() => {
        this.#timedOut = true;
        this.signal('SIGKILL', true);
      }, spec.timeoutMs);
    }
  }

  get pid(): number {
    return this.#spawned.pid;
  }

  /** The process's stdin, where one was asked for. */
  get stdin(): Writable | undefined {
    return this.#spawned.stdin;
  }

  /** How it ended, once output and all are through. */
  get exit(): ExecExit | undefined {
    return this.#exit;
  }

  /** Output kept so far, and how much went before it. */
  get replay(): ReplayBuffer {
    return this.#replay;
  }

  info(): ExecInfo {
    return {
      id: this.id,
      pid: this.pid,
      command: this.#plan.command,
      user: this.#plan.user.name,
      cwd: this.#plan.cwd,
      ...(this.#spec.tag === undefined ? {} : { tag: this.#spec.tag }),
      startedAtMs: this.#startedAtMs,
      running: this.#exit === undefined,
      ...(this.#exit ? { exit: this.#exit } : {}),
    };
  }

  /** Adds a listener for what comes from now on; the caller replays what was. */
  subscribe(subscriber: Subscriber): void {
    if (this.#exit) {
      subscriber.finished(this.#exit);
      return;
    }
    this.#subscribers.add(subscriber);
  }

  /** Removes a listener. The last one to go takes its back-pressure with it: output then flows into the replay buffer. */
  unsubscribe(subscriber: Subscriber): void {
    this.#subscribers.delete(subscriber);
    this.resume(subscriber);
  }

  /** A listener that had enough can take more. */
  resume(subscriber: Subscriber): void {
    if (!this.#blocked.delete(subscriber) || this.#blocked.size > 0) return;
    for (const stream of this.#open) stream.resume();
    this.#awaitSilence();
  }

  /** The stream that started it broke off. */
  starterGone(): void {
    if (!this.#isKept && !this.#exit) this.signal('SIGKILL', true);
  }

  /** Runs on whoever leaves. */
  keep(): void {
    this.#isKept = true;
  }

  /** Signals the process group, or with `tree` everything that descends from the first process. */
  signal(signal: NodeJS.Signals, tree: boolean): void {
    if (tree) {
      this.#spawned.tree.signal(signal);
    } else if (!this.#ended) {
      try {
        process.kill(-this.pid, signal); // not after its end: the id may be another's by now
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
      }
    }
  }

  /** Frees what the tree takes, where no background processes run in it any more. */
  release(): void {
    this.#spawned.tree.release();
  }

  /** Gives up its output. @returns its tree, where background processes still run in it */
  forget(): ProcessTree | undefined {
    this.#replay.trim(0);
    return this.#spawned.tree.release() ? undefined : this.#spawned.tree;
  }

  #read(stream: Readable, type: 2 | 3): void {
    this.#open.add(stream);
    stream.on('data', (data: Buffer) => this.#output(type, data));
    stream.on('error', () => stream.destroy());
    stream.once('close', () => {
      this.#open.delete(stream);
      if (this.#open.size === 0) this.#finish();
    });
  }

  #output(type: 2 | 3, data: Buffer): void {
    this.#replay.push(type, data);
    for (const subscriber of this.#subscribers) {
      if (!subscriber.output(type, data)) this.#blocked.add(subscriber);
    }
    if (this.#blocked.size > 0) for (const stream of this.#open) stream.pause();
    if (!this.#ended) return;
    this.#drainedBytes += data.length;
    if (this.#drainedBytes > DRAIN_BYTES) this.#stopReading();
    else this.#awaitSilence();
  }

  #processEnded(code: number | null, signal: NodeJS.Signals | null): void {
    clearTimeout(this.#timeout);
    this.#ended = {
      ...(code === null ? {} : { exitCode: code }),
      ...(signal === null ? {} : { signal }),
      durationMs: performance.now() - this.#startedAt,
      timedOut: this.#timedOut,
    };
    this.#spawned.stdin?.destroy();
    if (this.#open.size === 0) this.#finish();
    else this.#awaitSilence();
  }

  /** Restarts the wait for silence; a host that takes its time is no silence. */
  #awaitSilence(): void {
    clearTimeout(this.#silence);
    if (!this.#ended || this.#exit || this.#blocked.size > 0) return;
    this.#silence = setTimeout(() => {
      // A busy loop runs its late timers before it looks at the pipes, so they get one more look.
      const drained = this.#drainedBytes;
      setImmediate(() => {
        if (this.#drainedBytes === drained && this.#blocked.size === 0) this.#stopReading();
      });
    }, DRAIN_SILENCE_MS);
  }

  #stopReading(): void {
    for (const stream of this.#open) stream.destroy();
  }

  #finish(): void {
    if (!this.#ended || this.#exit) return;
    clearTimeout(this.#silence);
    this.#exit = this.#ended;
    for (const subscriber of this.#subscribers) subscriber.finished(this.#exit);
    this.#subscribers.clear();
    this.#blocked.clear();
    this.#onFinished(this);
  }
}
