/** What every command works with: its configuration, its output, its signals. */
import type { Command } from 'commander';
import type { LoadedConfig } from '../config/load.ts';
import type { Config } from '../config/schema.ts';
import type { ResolvedPaths } from '../config/paths.ts';
import type { Log } from '../log/index.ts';
import { collectFlags } from './config-flags.ts';
import { EXIT } from './exit-codes.ts';
import { Interrupts } from './interrupts.ts';
import { safeJson } from './safe-json.ts';
import { createStyle, wantsColor, type Style } from './style.ts';

/** One invocation of the program. */
export class CliContext {
  readonly env: NodeJS.ProcessEnv = process.env;
  readonly stdin = process.stdin;
  readonly stdout = process.stdout;
  readonly stderr = process.stderr;
  readonly interrupts = new Interrupts();
  /** For stdout. */
  readonly style: Style = createStyle(wantsColor(process.stdout, process.env));
  /** For stderr. */
  readonly errorStyle: Style = createStyle(wantsColor(process.stderr, process.env));
  /** The exit code so far; a thrown error overrides it. */
  exitCode: number = EXIT.ok;
  /** Exit code of an error: `run` and `exec` leave the low codes to the guest's command. */
  failureCode: number = EXIT.failure;
  /** Exit code of a wrong command line. */
  usageCode: number = EXIT.usage;
  /** Whether `--json` was given. */
  json = false;
  #loaded: LoadedConfig | undefined;
  #log: Log | undefined;

  /** Aborted by SIGINT, SIGTERM and SIGHUP; pass it to everything that waits. */
  get signal(): AbortSignal {
    return this.interrupts.signal;
  }

  /** The configuration with its origins. Commands find it loaded. */
  get loaded(): LoadedConfig {
    if (this.#loaded === undefined) throw new Error('the configuration has not been loaded yet');
    return this.#loaded;
  }

  get config(): Config {
    return this.loaded.config;
  }

  /** Directories for `Vm` and `ImageStore`. */
  get paths(): ResolvedPaths {
    return this.loaded.paths;
  }

  /** Whether the log was asked for stacks. */
  get debug(): boolean {
    const level = this.#loaded?.config.log.level;
    return level === 'debug' || level === 'trace';
  }

  /** Loads the configuration with a command's flags and starts the log. @throws ConfigError */
  async prepare(command: Command): Promise<void> {
    const options = command.optsWithGlobals<{ json?: unknown; config?: string }>();
    const { loadConfig } = await import('../config/load.ts');
    this.#loaded = await loadConfig({
      env: this.env,
      flags: collectFlags(command),
      configFile: (command.getOptionValue('config') as string | undefined) ?? options.config,
    });
    const { startLog } = await import('../log/index.ts');
    this.#log = await startLog(this.#loaded.config.log, { color: this.errorStyle.enabled });
  }

  /** Writes a line to stdout. */
  print(line: string): void {
    this.stdout.write(`${line}\n`);
  }

  /** Writes a value to stdout: indented for a terminal's reader, one line for a pipe. */
  printJson(value: unknown): void {
    this.print(safeJson(value, this.stdout.isTTY ? 2 : undefined));
  }

  /** Writes a line for people to stderr; nothing with `--json`. */
  note(line: string): void {
    if (!this.json) this.stderr.write(`${line}\n`);
  }

  /** Ends the log. */
  async close(): Promise<void> {
    await this.#log?.close();
    this.interrupts.close();
  }
}
