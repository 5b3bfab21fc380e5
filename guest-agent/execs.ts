/** All execs of this guest, running and lately finished. */
import { Exec } from './exec.ts';
import { libc, type Libc } from './libc.ts';
import { processTrees, type ProcessTrees } from './process-tree.ts';
import { LIMITS, type ExecInfo, type ExecSpec } from './protocol.ts';
import { RequestError } from './request-error.ts';

/** The execs belong to the agent, not to a connection. */
export class Execs {
  readonly #running = new Map<string, Exec>();
  /** In the order in which they ended. */
  readonly #finished = new Map<string, Exec>();
  /** Forgotten, but with background processes that still run in their groups. */
  #lingering: Exec[] = [];
  #trees: ProcessTrees | undefined;
  #libc: Promise<Libc | undefined> | undefined;
  #count = 0;
  #starting = 0;

  /** Does ahead of time what the first exec would otherwise wait for. */
  prepare(): void {
    this.#trees ??= processTrees();
    // Where ffi cannot be loaded (a guest without glibc), Node's own stdio sockets serve.
    this.#libc ??= libc().catch(() => undefined);
  }

  get runningCount(): number {
    return this.#running.size;
  }

  /** @throws RequestError */
  async start(spec: ExecSpec): Promise<Exec> {
    if (this.#running.size + this.#starting >= LIMITS.execs) {
      throw new RequestError('EAGAIN', `${LIMITS.execs} execs run already`, 429);
    }
    this.#starting += 1;
    try {
      this.prepare();
      this.#count += 1;
      const id = `${process.pid}-${this.#count}`;
      const tree = (this.#trees ??= processTrees()).create(id);
      const exec = await Exec.start(id, spec, {
        tree,
        libc: await this.#libc,
        onFinished: (ended) => this.#ended(ended),
      }).catch((error: unknown) => {
        tree.release();
        throw error;
      });
      if (!exec.exit) this.#running.set(id, exec);
      return exec;
    } finally {
      this.#starting -= 1;
    }
  }

  /** @throws RequestError `ENOENT_EXEC` with status 404 */
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
    for (const [id, oldest] of this.#finished) {
      if (this.#finished.size <= LIMITS.finishedExecs) break;
      this.#finished.delete(id);
      this.#lingering.push(oldest);
    }
    // Off the path of the exec that just ended, and of the next.
    setImmediate(() => {
      exec.release();
      this.#lingering = this.#lingering.filter((old) => !old.release());
      this.#trimReplay();
      this.#trees?.prepare();
    });
  }

  #trimReplay(): void {
    let total = 0;
    for (const exec of this.#running.values()) total += exec.replaySize;
    for (const exec of this.#finished.values()) total += exec.replaySize;
    for (const exec of this.#finished.values()) {
      if (total <= LIMITS.totalReplayBytes) return;
      total -= exec.replaySize;
      exec.replay.trim(0);
    }
  }
}
