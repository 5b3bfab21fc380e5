/** A command that runs in a VM: reads its output, waits for its end. */
import { Readable, type Writable } from 'node:stream';
import { setTimeout as delay } from 'node:timers/promises';
import type { ExecExit } from '../../guest-agent/protocol.ts';
import { CommandExitError, StateError, TimeoutError } from '../errors.ts';
import type { GuestExec } from '../guest/index.ts';
import type { GuestAccess, WaitOptions } from './api.ts';
import { isUnknownExec, noCommand } from './no-command.ts';
import { onAbort, rejectOnAbort } from './abort.ts';
import { sendAll, writeAndWait } from './command-stdin.ts';
import type { OutputCollector } from './command-output.ts';
import type {
  CommandEncoding,
  CommandHandle,
  CommandOptions,
  CommandResult,
  OutputOf,
} from './command-types.ts';

/** The guest kills a command whose time is over; one that has not said so after this long never will. */
const EXIT_REPORT_MS = 10_000;
/** What has come of a command whose session is lost, its listener gets within this time, ms. */
const LISTENER_MS = 1_000;
/** How exactly the time is known for which a VM was paused. */
const OVERDUE_STEP_MS = 1_000;

/** What a handle is made of. */
export interface HandleParts<E extends CommandEncoding> {
  readonly vm: GuestAccess;
  readonly exec: GuestExec;
  readonly stdout: OutputCollector<E>;
  readonly stderr: OutputCollector<E>;
  /** Whether it was started with a stdin. Undefined: started by somebody else. */
  readonly hasStdin: boolean | undefined;
  /** Whether a bad end rejects where {@link CommandHandle.wait} does not say. */
  readonly reject: boolean;
  /** The command's own, enforced in the guest; undefined: none. */
  readonly timeoutMs?: number | undefined;
  /** Kills the command. */
  readonly signal?: AbortSignal | undefined;
}

/** {@link CommandHandle} on an exec of the guest agent. Reads from the moment it is made. */
export class RunningCommand<E extends CommandEncoding> implements CommandHandle<E> {
  readonly pid: number;
  readonly #parts: HandleParts<E>;
  readonly #ended: Promise<CommandResult<E>>;
  #exit: ExecExit | undefined;
  #disconnected = false;
  #listening = true;
  /** Aborted where the command cannot get the whole stdin that it was meant to have. */
  readonly #stdinBroken = new AbortController();

  constructor(parts: HandleParts<E>) {
    this.#parts = parts;
    this.pid = parts.exec.pid;
    this.#ended = this.#follow().finally(() => (this.#listening = false));
    this.#ended.catch(() => undefined); // whoever waits hears of it
  }

  get stdout(): OutputOf<E> {
    return this.#parts.stdout.value;
  }

  get stderr(): OutputOf<E> {
    return this.#parts.stderr.value;
  }

  get exitCode(): number | undefined {
    return this.#exit?.exitCode;
  }

  async wait(o: WaitOptions & { reject?: boolean } = {}): Promise<CommandResult<E>> {
    const result = await within(this.#ended, `command ${this.pid}`, this.#parts.vm.id, o);
    if (result.exitCode === 0 || !(o.reject ?? this.#parts.reject)) return result;
    throw new CommandExitError(result, {
      vmId: this.#parts.vm.id,
      cause: result.isCanceled ? this.#parts.signal?.reason : undefined,
    });
  }

  async kill(signal: NodeJS.Signals = 'SIGKILL'): Promise<boolean> {
    if (this.#exit !== undefined) return false;
    const { exec, vm } = this.#parts;
    if (this.#listening) {
      await exec.kill(signal);
      return true;
    }
    const session = await vm.guest();
    const running = (await session.list()).some(({ id, running }) => running && id === exec.id);
    if (running) await session.signal(exec.id, signal, { tree: true });
    return running;
  }

  async sendStdin(data: string | Uint8Array, o: WaitOptions = {}): Promise<void> {
    this.#requireStdin();
    const { exec, vm } = this.#parts;
    if (exec.stdin === undefined) {
      await this.#writeById(Buffer.from(data), o);
      return;
    }
    // A command that has ended, or closed its stdin, loses what is sent, as a pipe's reader does.
    const sent = this.#sendOrLose(exec.stdin, data);
    await within(sent, `stdin of command ${this.pid}`, vm.id, o);
  }

  /** What is lost with the session is not the command's doing, and its sender hears of it. */
  async #sendOrLose(stdin: Writable, data: string | Uint8Array): Promise<void> {
    const { exec, vm } = this.#parts;
    await writeAndWait(stdin, data);
    if (!stdin.destroyed) return;
    await exec.exit.catch(async (error: unknown) => {
      throw this.#disconnected ? this.#notListening() : await vm.explain(error);
    });
  }

  async closeStdin(o: WaitOptions = {}): Promise<void> {
    this.#requireStdin();
    const { exec } = this.#parts;
    if (exec.stdin !== undefined) {
      exec.stdin.end();
      return;
    }
    await this.#writeById(Buffer.alloc(0), { ...o, eof: true });
  }

  /** Writes to the stdin of a command that another stream than ours has started. */
  async #writeById(data: Buffer, o: WaitOptions & { eof?: boolean }): Promise<void> {
    const { exec, vm } = this.#parts;
    const session = await vm.guest(o);
    await session.writeStdin(exec.id, data, o).catch((error: unknown) => {
      throw isUnknownExec(error) ? noCommand(vm.id, this.pid) : error;
    });
  }

  async disconnect(): Promise<void> {
    this.#disconnected = true;
    this.#listening = false;
    await this.#parts.exec.detach();
  }

  /** Sends what the caller gave as stdin, then EOF. A command need not read it. */
  feed(stdin: CommandOptions['stdin']): void {
    const target = this.#parts.exec.stdin;
    if (target === undefined || stdin === undefined || typeof stdin === 'boolean') return;
    if (!(stdin instanceof Readable)) {
      target.end(stdin);
      return;
    }
    sendAll(stdin, target).catch((error: unknown) => {
      // Half of it must not be taken for all of it.
      this.kill().catch(() => undefined);
      this.#stdinBroken.abort(error);
    });
  }

  async #follow(): Promise<CommandResult<E>> {
    const { exec, vm, stdout, stderr, signal, timeoutMs } = this.#parts;
    const over = new AbortController();
    let isCanceled = false;
    const cancel = () => {
      isCanceled = true;
      this.kill().catch(() => undefined);
    };
    if (signal !== undefined) onAbort(signal, over.signal, cancel);
    try {
      await Promise.race([
        this.#read(),
        this.#lost(over.signal),
        rejectOnAbort(vm.fault, over.signal),
        rejectOnAbort(this.#stdinBroken.signal, over.signal),
        ...(timeoutMs === undefined ? [] : [this.#overdue(timeoutMs, over.signal)]),
      ]);
      const exit = await exec.exit;
      this.#exit = exit;
      const { exitCode, signal: endedBy, durationMs, timedOut } = exit;
      return {
        exitCode,
        signal: endedBy,
        stdout: stdout.value,
        stderr: stderr.value,
        durationMs,
        timedOut,
        isCanceled: isCanceled && exitCode === undefined,
        truncated: stdout.truncated || stderr.truncated,
      };
    } catch (error) {
      if (this.#disconnected) throw this.#notListening();
      void exec.detach();
      throw await vm.explain(error);
    } finally {
      over.abort();
    }
  }

  async #read(): Promise<void> {
    const { exec, stdout, stderr } = this.#parts;
    for await (const piece of exec.output) {
      if ('truncatedBytes' in piece) stdout.lost(piece.truncatedBytes);
      else await (piece.stream === 'stdout' ? stdout : stderr).push(piece.data);
    }
    await Promise.all([stdout.end(), stderr.end()]);
  }

  /** Rejects when the session is lost, also where a listener is never through with what it was told. */
  async #lost(over: AbortSignal): Promise<never> {
    try {
      await this.#parts.exec.exit;
    } catch (error) {
      await delay(LISTENER_MS, undefined, { signal: over });
      throw error;
    }
    return new Promise(() => undefined); // it has ended; the rest is the reader's
  }

  /** Rejects when the guest ought to have killed the command long ago. Its time stops with its vCPUs. */
  async #overdue(timeoutMs: number, over: AbortSignal): Promise<never> {
    const { vm } = this.#parts;
    const isPaused = () => vm.state === 'paused';
    for (let leftMs = timeoutMs + EXIT_REPORT_MS; leftMs > 0;) {
      const wasPaused = isPaused();
      const stepMs = Math.min(leftMs, OVERDUE_STEP_MS);
      await delay(stepMs, undefined, { signal: over, ref: false });
      if (!wasPaused && !isPaused()) leftMs -= stepMs;
    }
    throw new TimeoutError(`end of command ${this.pid}`, timeoutMs + EXIT_REPORT_MS, {
      vmId: vm.id,
      hint: 'The guest did not kill it in time: it hangs, or its agent does not answer.',
    });
  }

  #requireStdin(): void {
    if (this.#parts.hasStdin !== false) return;
    throw new StateError(`command ${this.pid} has no stdin`, {
      vmId: this.#parts.vm.id,
      actual: 'without stdin',
      required: ['with stdin'],
      hint: 'Start it with `stdin: true`.',
    });
  }

  #notListening(): StateError {
    return new StateError(`nobody listens to command ${this.pid} any more`, {
      vmId: this.#parts.vm.id,
      actual: 'disconnected',
      required: ['connected'],
      hint: 'Connect again: `vm.commands.connect(pid)`.',
    });
  }
}

/** Waits for `work`, within the caller's bounds. */
async function within<T>(
  work: Promise<T>,
  operation: string,
  vmId: string,
  o: WaitOptions,
): Promise<T> {
  if (o.signal === undefined && o.timeoutMs === undefined) return work;
  const over = new AbortController();
  const waits: Promise<T>[] = [work];
  if (o.signal !== undefined) waits.push(rejectOnAbort(o.signal, over.signal));
  if (o.timeoutMs !== undefined) {
    const { timeoutMs } = o;
    waits.push(
      delay(timeoutMs, undefined, { signal: over.signal }).then(() => {
        throw new TimeoutError(operation, timeoutMs, { vmId });
      }),
    );
  }
  try {
    return await Promise.race(waits);
  } finally {
    over.abort();
    for (const wait of waits.slice(1)) wait.catch(() => undefined);
  }
}
