/** The test's end of a runner. */
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import type { Writable } from 'node:stream';
import { fileURLToPath } from 'node:url';
import type { Job, Passed, Told } from './job.ts';

const [PROGRAM, TSX] = ['runner.ts', '../../../../node_modules/tsx/dist/esm/index.mjs'].map(
  (path) => fileURLToPath(new URL(path, import.meta.url)),
) as [string, string];

/** How a job ended; undefined where the runner was killed. */
export type End = Extract<Told, { kind: 'done' | 'failed' }> | undefined;

/** One runner. */
export class Runner {
  readonly #child: ChildProcess;
  readonly #exited: Promise<unknown>;
  #listener: (told: Told) => void = () => undefined;
  readonly #ready: Promise<void>;

  constructor() {
    this.#child = spawn(process.execPath, ['--import', TSX, PROGRAM], {
      stdio: ['pipe', 'pipe', 'inherit', 'pipe'],
    });
    this.#exited = once(this.#child, 'exit');
    let ready: () => void;
    this.#ready = new Promise((resolve) => (ready = resolve));
    createInterface({ input: this.#child.stdout! }).on('line', (line) => {
      const told = JSON.parse(line) as Told;
      if (told.kind === 'ready') ready();
      else this.#listener(told);
    });
  }

  /**
   * Does a job.
   * @param strike done where the runner stands still; afterwards it goes on, where it lives
   * @returns how it ended, and the steps that it passed
   */
  async run(
    job: Job,
    strike: (at: Passed) => Promise<void> = () => Promise.resolve(),
  ): Promise<{ end: End; passed: Passed[] }> {
    await this.#ready;
    const passed: Passed[] = [];
    const end = await new Promise<End>((resolve, reject) => {
      void this.#exited.then(() => resolve(undefined));
      this.#listener = (told) => {
        if (told.kind === 'done' || told.kind === 'failed') resolve(told);
        else if (told.kind !== 'ready') passed.push(told);
        if (told.kind === 'at') strike(told).then(() => this.#go(), reject);
      };
      this.#child.stdin!.write(`${JSON.stringify(job)}\n`);
    });
    return { end, passed };
  }

  /** SIGKILL. Resolves when it is gone. */
  async kill(): Promise<void> {
    this.#child.kill('SIGKILL');
    await this.#exited;
  }

  #go(): void {
    const pipe = this.#child.stdio[3] as Writable;
    pipe.on('error', () => undefined); // it was killed
    pipe.write('.');
  }
}
