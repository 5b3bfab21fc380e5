/** A prompt for QMP commands, with completion, that shows events as they come. */
import { createInterface } from 'node:readline';
import type { Interface } from 'node:readline';
import type { Readable, Writable } from 'node:stream';
import type { QmpClient, QmpEvent } from '../../qmp/index.ts';
import { ConfigError, QmpAgentError, QmpCommandError, QmpInterruptedError } from '../errors.ts';
import { callByHand } from './qmp-call.ts';
import { CommandIndex } from './qmp-completion.ts';
import { parseQmpLine } from './qmp-input.ts';
import type { Style } from './style.ts';

/** Where a prompt reads and writes. */
export interface QmpPromptOptions {
  /** Somebody types where both are terminals. */
  readonly input: Readable;
  readonly output: Writable;
  readonly style: Style;
  /** Ends the prompt. */
  readonly signal: AbortSignal;
  /** Milliseconds for each command. */
  readonly timeoutMs?: number | undefined;
}

/**
 * Takes commands line by line until the input ends (Ctrl-D), and writes answers and events as they
 * come. Where nobody types, every answer, error and event is one line of JSON.
 *
 * @returns how many commands failed.
 * @throws QmpInterruptedError where QEMU ends meanwhile, unless told to by `quit`; `signal.reason`.
 */
export async function runQmpPrompt(
  client: QmpClient,
  options: QmpPromptOptions,
): Promise<{ failed: number }> {
  const { signal } = options;
  const index = new CommandIndex(await client.execute('query-qmp-schema', {}, { signal }));
  return new Prompt(client, index, options).run();
}

class Prompt {
  readonly #client: QmpClient;
  readonly #index: CommandIndex;
  readonly #options: QmpPromptOptions;
  readonly #interactive: boolean;
  readonly #lines: Interface;
  /** Ends the wait for the command under way; Ctrl-C. */
  #current: AbortController | undefined;
  #failed = 0;
  #quitting = false;
  /** Whether the input has ended: there is no prompt any more then. */
  #ended = false;

  constructor(client: QmpClient, index: CommandIndex, options: QmpPromptOptions) {
    const { input, output } = options;
    this.#client = client;
    this.#index = index;
    this.#options = options;
    this.#interactive = isTerminal(input) && isTerminal(output);
    this.#lines = createInterface({
      input,
      ...(this.#interactive ? { output } : {}),
      terminal: this.#interactive,
      prompt: '(qmp) ',
      completer: (line: string) => index.complete(line),
    });
  }

  async run(): Promise<{ failed: number }> {
    const { signal } = this.#options;
    // The iterator must be there before the first wait: lines are not kept for later ones.
    const lines = this.#lines[Symbol.asyncIterator]();
    const close = (): void => {
      this.#lines.close();
    };
    let lost: Error | undefined;
    void this.#client.closed.then((error) => {
      lost = error;
      close();
    });
    signal.addEventListener('abort', close, { once: true });
    this.#lines.once('close', () => (this.#ended = true));
    this.#lines.on('SIGINT', () => this.#onInterrupt());
    const events = this.#client.events();
    const shown = this.#show(events);
    try {
      if (this.#interactive) this.#greet();
      for await (const line of { [Symbol.asyncIterator]: () => lines }) {
        await this.#take(line.trim());
        // Lines that were read before the end are of no use after it.
        if (lost !== undefined || signal.aborted) break;
        if (this.#interactive && !this.#ended) this.#lines.prompt();
      }
    } finally {
      signal.removeEventListener('abort', close);
      close();
      await events.return?.();
      await shown;
    }
    signal.throwIfAborted();
    if (lost !== undefined && !this.#quitting) throw lost;
    return { failed: this.#failed };
  }

  #greet(): void {
    const { major, minor, micro } = this.#client.version;
    this.#write(
      `QEMU ${major}.${minor}.${micro}. COMMAND [JSON]; Tab completes, help explains, Ctrl-D leaves.`,
    );
  }

  async #take(line: string): Promise<void> {
    const [word, topic] = line.split(/\s+/, 2);
    if (line === '') return;
    try {
      if (word === 'help') this.#help(topic);
      else await this.#execute(line);
    } catch (error) {
      this.#options.signal.throwIfAborted();
      // run() tells of a connection that was lost, unless `quit` was the reason.
      if (!(error instanceof QmpInterruptedError)) this.#fail(error as Error);
    }
  }

  async #execute(line: string): Promise<void> {
    const input = parseQmpLine(line);
    this.#quitting ||= input.command === 'quit';
    this.#current = new AbortController();
    const signal = AbortSignal.any([this.#current.signal, this.#options.signal]);
    try {
      const value = await callByHand(this.#client, input, {
        signal,
        timeoutMs: this.#options.timeoutMs,
      });
      this.#write(
        this.#interactive ? JSON.stringify(value, undefined, 2) : JSON.stringify({ return: value }),
      );
    } finally {
      this.#current = undefined;
    }
  }

  #help(command: string | undefined): void {
    if (command === undefined) {
      this.#write(this.#index.commands.join('\n'));
      return;
    }
    const args = this.#index.arguments(command);
    if (!args) {
      const hint = "Enter 'help' for a list.";
      throw new ConfigError(`no such command: ${command}`, { field: 'help', value: command, hint });
    }
    const lines = args.map(
      ({ name, type, optional }) => `  "${name}": ${type}${optional ? ' (optional)' : ''}`,
    );
    this.#write([`${command}${lines.length === 0 ? ': no arguments' : ''}`, ...lines].join('\n'));
  }

  /** Writes events until there are no more; run() tells of a connection that was lost. */
  async #show(events: AsyncIterable<QmpEvent>): Promise<void> {
    try {
      for await (const event of events) this.#write(this.#describeEvent(event));
    } catch (error) {
      if (!(error instanceof QmpInterruptedError)) this.#fail(error as Error);
    }
  }

  #describeEvent(event: QmpEvent): string {
    if (!this.#interactive) return JSON.stringify(event);
    const { seconds, microseconds } = event.timestamp;
    const time = new Date(seconds * 1000 + microseconds / 1000).toISOString().slice(11, 23);
    const data = event.data === undefined ? '' : ` ${JSON.stringify(event.data)}`;
    return this.#options.style.dim(`${time} ${event.event}${data}`);
  }

  #fail(error: Error): void {
    this.#failed += 1;
    const hint = error instanceof QmpAgentError ? error.hint : undefined;
    if (this.#interactive) {
      this.#write(this.#options.style.red(error.message) + (hint === undefined ? '' : `\n${hint}`));
      return;
    }
    const told =
      error instanceof QmpCommandError
        ? { class: error.errorClass, desc: error.desc }
        : { class: error.name, desc: error.message };
    this.#write(JSON.stringify({ error: { ...told, hint } }));
  }

  /** Ctrl-C: ends the wait for an answer, or the line that is typed. */
  #onInterrupt(): void {
    if (this.#current) {
      const reason = 'stopped waiting for the answer; QEMU may still carry the command out';
      this.#current.abort(new DOMException(reason, 'AbortError'));
    } else {
      this.#lines.write(null, { ctrl: true, name: 'e' });
      this.#lines.write(null, { ctrl: true, name: 'u' });
      this.#write('(Ctrl-D leaves)');
    }
  }

  /** Writes above the line that somebody may be typing. */
  #write(text: string): void {
    if (!this.#interactive) {
      this.#options.output.write(`${text}\n`);
      return;
    }
    // CR, erase to the end of the screen (ECMA-48 ED): the prompt is drawn anew below the text.
    this.#options.output.write(`\r\x1b[J${text}\n`);
    if (!this.#current && !this.#ended) this.#lines.prompt(true);
  }
}

function isTerminal(stream: object): boolean {
  return 'isTTY' in stream && stream.isTTY === true;
}
