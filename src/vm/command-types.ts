/** What callers of `vm.commands` give and get. Types only; names are those of the E2B SDK and of execa. */
import type { Readable } from 'node:stream';
import type { WaitOptions } from './wait-options.ts';

/** How output is handed over: as text, or as the bytes that came. */
export type CommandEncoding = 'utf8' | 'buffer';
/** Output in an encoding. */
export type OutputOf<E extends CommandEncoding> = E extends 'buffer' ? Buffer : string;

/**
 * What to run: a line for the guest's login shell (`bash -lc`, else `sh -c`), or program and
 * arguments, which run as they are.
 */
export type CommandLine = string | readonly string[];

/** Who gets output as it comes. A promise holds the command back until it is settled. */
export type OutputListener<E extends CommandEncoding> = (data: OutputOf<E>) => unknown;

/** Where the output of a command goes, and how much of it is kept. */
export interface OutputOptions<E extends CommandEncoding = 'utf8'> {
  onStdout?: OutputListener<E> | undefined;
  onStderr?: OutputListener<E> | undefined;
  /** Default `utf8`; what is no UTF-8 becomes U+FFFD. */
  encoding?: E | undefined;
  /**
   * Bytes of stdout, and of stderr, that the result keeps: the last ones. What went before them is
   * replaced by a line that says how much it was, and `truncated` is set. Default 16 MiB, at most 512.
   */
  maxOutputBytes?: number | undefined;
}

/** Options of {@link CommandsApi.run}. */
export interface CommandOptions<E extends CommandEncoding = 'utf8'> extends OutputOptions<E> {
  /** `true`: resolves with a handle as soon as the command runs. Default false: waits for its end. */
  background?: boolean | undefined;
  /** Working directory. Default: the user's home. */
  cwd?: string | undefined;
  /** Added to the image's environment. Values never reach a log, an error or a process list of the host. */
  envs?: Readonly<Record<string, string>> | undefined;
  /** User name or numeric uid in the guest. Default `agent`. */
  user?: string | undefined;
  /**
   * `true`: the command gets a pipe for {@link CommandHandle.sendStdin}. Text, bytes or a stream are
   * sent, then EOF. Default false: `/dev/null`.
   */
  stdin?: boolean | string | Uint8Array | Readable | undefined;
  /** ms; then the whole process tree is killed. 0: never. Default 60 000, as in E2B. */
  timeoutMs?: number | undefined;
  /** ms until the guest must have started the command. Default 30 000. */
  requestTimeoutMs?: number | undefined;
  /** Kills the whole process tree; the result has `isCanceled` then. */
  signal?: AbortSignal | undefined;
  /** Default true: what does not end with exit code 0 rejects, with a `CommandExitError`. */
  reject?: boolean | undefined;
  /** Free text by which {@link CommandsApi.list} shows the command. */
  tag?: string | undefined;
}

/** How a command ended; the shape is execa's. */
export interface CommandResult<E extends CommandEncoding = 'utf8'> {
  /** Undefined where a signal ended it. */
  readonly exitCode: number | undefined;
  /** `SIGKILL`, …; undefined where it ended by itself. */
  readonly signal: string | undefined;
  readonly stdout: OutputOf<E>;
  readonly stderr: OutputOf<E>;
  /** ms from spawn to exit, by the guest's monotonic clock. */
  readonly durationMs: number;
  /** It was killed because `timeoutMs` was over. */
  readonly timedOut: boolean;
  /** It was killed because `signal` was aborted. */
  readonly isCanceled: boolean;
  /** Output is missing from the result: more than `maxOutputBytes`, or than the agent kept for a late listener. */
  readonly truncated: boolean;
}

/** A command that runs in a VM, as {@link CommandsApi.list} shows it. */
export interface CommandInfo {
  /** In the guest. */
  readonly pid: number;
  readonly tag: string | undefined;
  readonly cmd: string;
  readonly args: readonly string[];
  readonly cwd: string;
  readonly user: string;
  /** By the guest's clock. */
  readonly startedAt: Date;
}

/** A command that runs, in the hands of who started it or connected to it. */
export interface CommandHandle<E extends CommandEncoding = 'utf8'> {
  /** Process id in the guest. */
  readonly pid: number;
  /** Output so far. */
  readonly stdout: OutputOf<E>;
  readonly stderr: OutputOf<E>;
  /** Undefined while it runs, or where a signal ended it. */
  readonly exitCode: number | undefined;
  /**
   * Waits for its end.
   * @throws CommandExitError where it does not end with exit code 0 and `reject` is not false
   * @throws TimeoutError, or the signal's reason: of the wait, which does not touch the command
   */
  wait(o?: WaitOptions & { reject?: boolean }): Promise<CommandResult<E>>;
  /** Signals the whole process tree. Default SIGKILL. @returns whether it still ran */
  kill(signal?: NodeJS.Signals): Promise<boolean>;
  /** Writes to its stdin; resolves when there is room for more. @throws StateError it has none */
  sendStdin(data: string | Uint8Array, o?: WaitOptions): Promise<void>;
  /** Its stdin is at an end. */
  closeStdin(o?: WaitOptions): Promise<void>;
  /** Stops listening; the command runs on, and can be connected to. */
  disconnect(): Promise<void>;
}

/** `vm.commands`. */
export interface CommandsApi {
  /**
   * Runs a command.
   * @throws CommandExitError it did not end with exit code 0 (and `reject` is not false)
   * @throws GuestRequestError it cannot be started: no such program, directory or user
   * @throws ConfigError, StateError, VmDiedError, GuestPanicError, HostError (disk full), GuestError,
   *   TimeoutError the guest did not start it in time, or did not report its end
   */
  run<E extends CommandEncoding = 'utf8'>(
    command: CommandLine,
    options: CommandOptions<E> & { background: true },
  ): Promise<CommandHandle<E>>;
  run<E extends CommandEncoding = 'utf8'>(
    command: CommandLine,
    options?: CommandOptions<E> & { background?: false | undefined },
  ): Promise<CommandResult<E>>;
  /** Commands that run now, whoever started them. */
  list(o?: WaitOptions): Promise<CommandInfo[]>;
  /** Kills a command and all that descends from it. @returns false where none has this pid */
  kill(pid: number, o?: WaitOptions): Promise<boolean>;
  /** Writes to a command's stdin. @throws NotFoundError none has this pid */
  sendStdin(pid: number, data: string | Uint8Array, o?: WaitOptions): Promise<void>;
  /** Ends a command's stdin. @throws NotFoundError none has this pid */
  closeStdin(pid: number, o?: WaitOptions): Promise<void>;
  /**
   * Listens to a command: what the agent kept of its output (the last MiB), then what comes.
   * @throws NotFoundError none has this pid
   */
  connect<E extends CommandEncoding = 'utf8'>(
    pid: number,
    options?: OutputOptions<E> & WaitOptions,
  ): Promise<CommandHandle<E>>;
}
