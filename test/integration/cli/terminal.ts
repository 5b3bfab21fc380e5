/** The command on a terminal of its own, for what only happens on one. */
import { execa } from 'execa';
import { NODE_ARGS } from './command.ts';
import { SCALE } from '../../scale.ts';

const DEADLINE_MS = 30_000 * SCALE;

/** Runs a command line on a terminal. */
const onTerminal = (line: string, env: Record<string, string>) =>
  execa('script', ['--quiet', '--return', '--command', line, '/dev/null'], {
    reject: false,
    env: { TERM: 'xterm', NO_COLOR: '1', ...env },
    timeout: 4 * DEADLINE_MS,
    killSignal: 'SIGKILL',
  });

/** script(1) gives the command a pseudo-terminal, and passes on what is typed and shown. */
export class Terminal implements AsyncDisposable {
  readonly #process: ReturnType<typeof onTerminal>;
  /** What was shown and not yet looked at. */
  #unseen = '';
  #onOutput: () => void = () => undefined;

  private constructor(process: ReturnType<typeof onTerminal>) {
    this.#process = process;
    this.#process.stdout.on('data', (chunk: Buffer) => {
      this.#unseen += chunk.toString();
      this.#onOutput();
    });
  }

  /** Starts `qmp-agent` with these arguments. */
  static start(args: readonly string[], env: Record<string, string> = {}): Terminal {
    const words = [process.execPath, ...NODE_ARGS, ...args];
    const line = words.map((word) => `'${word.replaceAll("'", `'\\''`)}'`).join(' ');
    return new Terminal(onTerminal(line, env));
  }

  /**
   * Types; `\r` is Enter, `\t` Tab, `\x03` Ctrl-C, `\x04` Ctrl-D. Text that comes at once counts as
   * pasted, in which only a Tab at its end completes.
   */
  type(keys: string): void {
    this.#process.stdin.write(keys);
  }

  /** Waits until this is shown, and gives what was shown up to its end since the last call. */
  async shows(wanted: string): Promise<string> {
    const deadline = AbortSignal.timeout(DEADLINE_MS);
    const ended = this.#process.then(() => true);
    for (let isOver = false; ;) {
      const at = this.#unseen.indexOf(wanted);
      if (at !== -1) {
        const end = at + wanted.length;
        const seen = this.#unseen.slice(0, end);
        this.#unseen = this.#unseen.slice(end);
        return seen;
      }
      if (isOver || deadline.aborted) {
        const why = isOver ? 'the program ended' : `${DEADLINE_MS} ms`;
        throw new Error(`not shown (${why}): ${wanted}\nshown instead: ${this.#unseen}`);
      }
      const output = new Promise<false>((resolve) => {
        this.#onOutput = () => resolve(false);
        deadline.addEventListener('abort', this.#onOutput, { once: true });
      });
      isOver = await Promise.race([output, ended]);
    }
  }

  /** Waits for the end; gives the exit code, and what was shown since the last look. */
  async end(): Promise<{ exitCode: number | undefined; rest: string }> {
    const { exitCode } = await this.#process;
    return { exitCode, rest: this.#unseen };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#process.kill('SIGKILL');
    await this.#process;
  }
}
