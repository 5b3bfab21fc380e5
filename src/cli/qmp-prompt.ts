/** QMP by hand: one command, or a prompt. */
import { createInterface } from 'node:readline';
import type { Interface } from 'node:readline';
import type { Readable, Writable } from 'node:stream';
import { QmpClient } from '../../qmp/index.ts';
import type { QmpEvent } from '../../qmp/index.ts';
import { ConfigError, QmpAgentError, QmpCommandError, QmpInterruptedError } from '../errors.ts';
import { CommandIndex } from './qmp-completion.ts';
import { createStyle, type Style } from './style.ts';

/** Is shown every line of the session, for transcripts. */
type OnLine = (direction: 'in' | 'out', line: string) => void;

/** One command by hand. */
export interface QmpCommandOptions {
  /** The client to use, which stays open; or the socket to connect to. */
  readonly target: QmpClient | string;
  readonly command: string;
  /** The arguments, as a JSON object. */
  readonly json?: string | undefined;
  readonly out: Writable;
  /** Indents the answer. Default: where `out` is a terminal. */
  readonly pretty?: boolean | undefined;
  readonly signal?: AbortSignal | undefined;
  readonly onLine?: OnLine | undefined;
}

/**
 * Sends one command and writes QEMU's answer as JSON.
 *
 * @throws ConfigError where the arguments are no JSON object; QmpError; `signal.reason`.
 */
export async function runQmpCommand(options: QmpCommandOptions): Promise<void> {
  const { target, command, json, out, signal, onLine } = options;
  const args = parseArguments(command, json);
  const client =
    typeof target === 'string' ? await QmpClient.connect({ path: target, signal, onLine }) : target;
  try {
    const value = await client.executeRaw(command, args, { signal });
    out.write(`${format(value, options.pretty ?? isTerminal(out))}\n`);
  } finally {
    if (client !== target) await client.close();
  }
}

/** A prompt. */
export interface QmpPromptOptions {
  /** The socket to connect to. */
  readonly path: string;
  readonly input: Readable;
  readonly output: Writable;
  /** Whether somebody types. Default: where input and output are terminals. */
  readonly interactive?: boolean | undefined;
  /** Default: no colours. */
  readonly style?: Style | undefined;
  readonly signal?: AbortSignal | undefined;
  readonly onLine?: OnLine | undefined;
}

/**
 * Takes commands line by line until the input ends (Ctrl-D), and writes answers and events as they
 * come. Where nobody types, every answer, error and event is one line of JSON.
 *
 * @returns how many commands failed.
 * @throws QmpConnectError; QmpInterruptedError where QEMU ends meanwhile, unless told to by `quit`;
 * `signal.reason`.
 */
export async function runQmpPrompt(options: QmpPromptOptions): Promise<{ failed: number }> {
  const { path, signal, onLine } = options;
  const client = await QmpClient.connect({ path, signal, onLine });
  try {
    const index = new CommandIndex(await client.executeRaw('query-qmp-schema', {}, { signal }));
    return await new Prompt(client, index, options).run();
  } finally {
    await client.close();
  }
}

const OWN_COMMANDS = ['help'] as const;
const PROMPT = '(qmp) ';

class Prompt {
  readonly #client: QmpClient;
  readonly #index: CommandIndex;
  readonly #output: Writable;
  readonly #interactive: boolean;
  readonly #style: Style;
  readonly #signal: AbortSignal | undefined;
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
    this.#output = output;
    this.#interactive = options.interactive ?? (isTerminal(input) && isTerminal(output));
    this.#style = options.style ?? createStyle(false);
    this.#signal = options.signal;
    this.#lines = createInterface({
      input,
      ...(this.#interactive ? { output } : {}),
      terminal: this.#interactive,
      prompt: PROMPT,
      completer: (line: string) => index.complete(line, OWN_COMMANDS),
    });
  }

  async run(): Promise<{ failed: number }> {
    // The iterator must be there before the first wait: lines are not kept for later ones.
    const lines = this.#lines[Symbol.asyncIterator]();
    const onAbort = (): void => {
      this.#lines.close();
    };
    this.#lines.once('close', () => {
      this.#ended = true;
    });
    this.#lines.on('SIGINT', () => {
      this.#onInterrupt();
    });
    this.#signal?.addEventListener('abort', onAbort, { once: true });
    void this.#client.closed.then(onAbort);
    const events = this.#showEvents();
    try {
      if (this.#interactive) this.#greet();
      for await (const line of { [Symbol.asyncIterator]: () => lines }) {
        await this.#take(line.trim());
        if (this.#interactive && !this.#ended) this.#lines.prompt();
      }
      this.#signal?.throwIfAborted();
    } finally {
      this.#signal?.removeEventListener('abort', onAbort);
      this.#lines.close();
      await this.#client.close();
      await events;
    }
    const lost = await this.#client.closed;
    if (lost && !this.#quitting) throw lost;
    return { failed: this.#failed };
  }

  #greet(): void {
    const { major, minor, micro } = this.#client.version;
    this.#write(
      `QEMU ${major}.${minor}.${micro}. COMMAND [JSON]; Tab completes, help explains, Ctrl-D leaves.`,
    );
    this.#lines.prompt();
  }

  async #take(line: string): Promise<void> {
    if (line === '') return;
    try {
      const { command, args } = parseLine(line);
      if (command === 'help') {
        this.#help(args === undefined ? '' : line.slice('help'.length).trim());
        return;
      }
      await this.#execute(command, typeof args === 'string' ? parseArguments(command, args) : args);
    } catch (error) {
      this.#signal?.throwIfAborted();
      this.#failed += 1;
      this.#write(this.#describe(error));
    }
  }

  async #execute(command: string, args: object | undefined): Promise<void> {
    this.#current = new AbortController();
    const signals = [this.#current.signal, ...(this.#signal ? [this.#signal] : [])];
    this.#quitting ||= command === 'quit';
    try {
      const value = await this.#client.executeRaw(command, args, {
        signal: AbortSignal.any(signals),
      });
      this.#write(format(this.#interactive ? value : { return: value }, this.#interactive));
    } catch (error) {
      // QEMU may be gone before its answer to `quit` is written.
      if (!(this.#quitting && error instanceof QmpInterruptedError)) throw error;
    } finally {
      this.#current = undefined;
    }
  }

  #help(command: string): void {
    if (command === '') {
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

  /** Writes events until the client is closed or its connection is lost, which run() reports. */
  async #showEvents(): Promise<void> {
    try {
      for await (const event of this.#client.events()) this.#write(this.#describeEvent(event));
    } catch (error) {
      if (!(error instanceof QmpAgentError)) throw error;
      if (!this.#quitting && this.#interactive) this.#write(this.#describe(error));
    }
  }

  #describeEvent(event: QmpEvent): string {
    if (!this.#interactive) return format(event, false);
    const { seconds, microseconds } = event.timestamp;
    const time = new Date(seconds * 1000 + microseconds / 1000).toISOString().slice(11, 23);
    const data = event.data === undefined ? '' : ` ${JSON.stringify(event.data)}`;
    return this.#style.dim(`${time} ${event.event}${data}`);
  }

  #describe(error: unknown): string {
    if (!(error instanceof Error)) return String(error);
    const hint = error instanceof QmpAgentError ? error.hint : undefined;
    if (!this.#interactive) {
      const name = error instanceof QmpCommandError ? error.errorClass : error.name;
      return format({ error: { class: name, desc: error.message, hint } }, false);
    }
    return this.#style.red(error.message) + (hint === undefined ? '' : `\n${hint}`);
  }

  #onInterrupt(): void {
    if (this.#current) {
      this.#current.abort(
        new QmpInterruptedError('stopped waiting for the answer', {
          hint: 'QEMU may still carry the command out.',
        }),
      );
    } else {
      this.#write('(Ctrl-D leaves)');
    }
  }

  /** Writes above the line that somebody may be typing. */
  #write(text: string): void {
    if (!this.#interactive) {
      this.#output.write(`${text}\n`);
      return;
    }
    // CR, erase to the end of the screen (ECMA-48 ED): the prompt is drawn anew below the text.
    this.#output.write(`\r\x1b[J${text}\n`);
    if (!this.#current && !this.#ended) this.#lines.prompt(true);
  }
}

/** A line is `COMMAND [JSON]`, or a whole `{"execute": …}` as it goes over the wire. */
function parseLine(line: string): { command: string; args: string | object | undefined } {
  if (line.startsWith('{')) {
    const message = parseObject('line', line);
    const { execute, arguments: args } = message as { execute?: unknown; arguments?: unknown };
    if (typeof execute === 'string') {
      return { command: execute, args: (args as object | null) ?? undefined };
    }
    const hint = 'Write COMMAND [JSON], e.g. query-status, or {"execute": "query-status"}.';
    throw new ConfigError('the line has no "execute"', { field: 'line', value: line, hint });
  }
  const [, command = line, json] = /^(\S+)\s+(.*)$/s.exec(line) ?? [];
  return { command, args: json };
}

/** @throws ConfigError where it is no JSON object. */
function parseArguments(command: string, json: string | undefined): object | undefined {
  return json === undefined ? undefined : parseObject(`arguments of ${command}`, json);
}

function parseObject(field: string, json: string): object {
  const hint = `Write a JSON object in quotes of the shell, e.g. '{"id": "disk0"}'.`;
  let value: unknown;
  try {
    value = JSON.parse(json);
  } catch (cause) {
    const message = `${field}: not JSON: ${json} (${(cause as Error).message})`;
    throw new ConfigError(message, { field, value: json, hint, cause });
  }
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value;
  throw new ConfigError(`${field}: not a JSON object: ${json}`, { field, value: json, hint });
}

function format(value: unknown, pretty: boolean): string {
  return JSON.stringify(value, undefined, pretty ? 2 : undefined);
}

function isTerminal(stream: object): boolean {
  return 'isTTY' in stream && stream.isTTY === true;
}
