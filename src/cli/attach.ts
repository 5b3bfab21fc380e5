/**
 * A command in a guest with this process's stdin, stdout and stderr: bytes through with
 * back-pressure, signals to the command, its end as an exit code.
 */
import { once } from 'node:events';
import { pipeline } from 'node:stream/promises';
import type { Writable } from 'node:stream';
import type { ExecSpec, ExecExit } from '../../guest-agent/protocol.ts';
import { GuestRequestError } from '../errors.ts';
import type { GuestExec, GuestSession } from '../guest/index.ts';
import { rejectOnAbort } from '../vm/abort.ts';
import type { GuestAccess } from '../vm/api.ts';
import type { CliContext } from './context.ts';
import { EXIT, signalExitCode } from './exit-codes.ts';
import type { EndSignal } from './interrupts.ts';

/** After SIGTERM or SIGHUP: what a command gets to end by itself. */
const END_GRACE_MS = 3_000;

/** How a command ended, for this process's own exit. */
export interface AttachResult {
  readonly exitCode: number;
  /** Whether the user wanted the VM gone as well: a second Ctrl-C, or the grace was over. */
  readonly killVm: boolean;
}

/** Runs a command to its end. @throws GuestError, and whatever made the VM die */
export async function runAttached(
  vm: GuestAccess,
  spec: ExecSpec,
  context: CliContext,
): Promise<AttachResult> {
  try {
    const session = await vm.guest({ signal: context.signal });
    const exec = await session.exec(spec, { signal: context.signal });
    return await follow(vm, session, exec, context);
  } catch (error) {
    const refused = refusedExitCode(error);
    if (refused === undefined) throw await vm.explain(error);
    context.stderr.write(`qmp-agent: ${(error as Error).message}\n`);
    return { exitCode: refused, killVm: false };
  }
}

async function follow(
  vm: GuestAccess,
  session: GuestSession,
  exec: GuestExec,
  context: CliContext,
): Promise<AttachResult> {
  const interrupt = new Interruption(exec, session, context);
  const stdin = exec.stdin === undefined ? undefined : feedStdin(context, exec.stdin);
  const over = new AbortController();
  const broken = [interrupt.over, rejectOnAbort(vm.fault, over.signal)];
  try {
    await Promise.race([pump(exec, context), ...broken]);
    const exit = await Promise.race([exec.exit, ...broken]);
    return { exitCode: exitCodeOf(exit), killVm: false };
  } catch (error) {
    if (error instanceof OutputClosed) {
      await exec.kill().catch(() => undefined);
      return { exitCode: signalExitCode('SIGPIPE'), killVm: false };
    }
    if (interrupt.received === undefined || !interrupt.gaveUp) throw error;
    return { exitCode: signalExitCode(interrupt.received), killVm: true };
  } finally {
    over.abort();
    interrupt.close();
    stdin?.stop();
  }
}

/** As docker: 126 where the program cannot be invoked, 127 where there is none. */
function refusedExitCode(error: unknown): number | undefined {
  if (!(error instanceof GuestRequestError)) return undefined;
  switch (error.guestCode) {
    case 'ENOENT':
      return EXIT.notFound;
    case 'EACCES':
    case 'EPERM':
    case 'ENOEXEC':
    case 'ENOTDIR':
    case 'EISDIR':
      return EXIT.cannotInvoke;
    default:
      return undefined;
  }
}

function exitCodeOf(exit: ExecExit): number {
  if (exit.timedOut) return EXIT.timedOut;
  if (exit.signal !== undefined) return signalExitCode(exit.signal);
  return exit.exitCode ?? EXIT.ownFailure;
}

/** The reader of our output has gone. */
class OutputClosed extends Error {}

async function pump(exec: GuestExec, context: CliContext): Promise<void> {
  const { stdout, stderr } = context;
  const closed = { stdout: false, stderr: false };
  const onClosed = (name: 'stdout' | 'stderr') => () => {
    closed[name] = true;
  };
  const marks = { stdout: onClosed('stdout'), stderr: onClosed('stderr') };
  stdout.on('error', marks.stdout);
  stderr.on('error', marks.stderr);
  try {
    for await (const piece of exec.output) {
      if (closed.stdout) throw new OutputClosed();
      if ('truncatedBytes' in piece) {
        context.note(`qmp-agent: ${piece.truncatedBytes} bytes of output are missing here`);
        continue;
      }
      const target = piece.stream === 'stdout' ? stdout : stderr;
      if (closed[piece.stream]) continue;
      await write(target, piece.data);
    }
    if (closed.stdout) throw new OutputClosed();
  } finally {
    stdout.off('error', marks.stdout);
    stderr.off('error', marks.stderr);
  }
}

/** Writes and, where the pipe is full, waits for room. A write that fails is for the error listener. */
async function write(target: Writable, data: Buffer): Promise<void> {
  if (target.write(data)) return;
  const gone = new AbortController();
  try {
    await Promise.race([
      once(target, 'drain', { signal: gone.signal }),
      once(target, 'close', { signal: gone.signal }),
    ]);
  } catch {
    // `error`: told to the listener, or the abort below.
  } finally {
    gone.abort();
  }
}

/**
 * Sends our stdin to the command. It ends with EOF or with the command, whichever is first: a
 * terminal that nobody types at holds nothing up.
 */
function feedStdin(context: CliContext, target: Writable): { stop: () => void } {
  const { stdin } = context;
  const abort = new AbortController();
  // A command need not read its stdin: that it is gone (EPIPE) is no error.
  pipeline(stdin, target, { signal: abort.signal }).catch(() => {
    if (!target.destroyed) target.destroy();
  });
  return {
    stop: () => {
      abort.abort();
      stdin.destroy();
    },
  };
}

/** Ctrl-C to the command, the second one to the VM; SIGTERM and SIGHUP to the command, with a grace. */
class Interruption {
  /** Rejects when the command is not waited for any longer. */
  readonly over: Promise<never>;
  received: EndSignal | undefined;
  gaveUp = false;
  readonly #release: () => void;
  #timer: NodeJS.Timeout | undefined;
  #giveUp: (reason: Error) => void = () => undefined;

  constructor(exec: GuestExec, session: GuestSession, context: CliContext) {
    this.over = new Promise((_resolve, reject) => {
      this.#giveUp = (reason) => {
        this.gaveUp = true;
        reject(reason);
      };
    });
    this.over.catch(() => undefined);
    this.#release = context.interrupts.take((signal) => {
      const again = this.received !== undefined;
      this.received = signal;
      const reason = new DOMException(`interrupted by ${signal}`, 'AbortError');
      if (again) {
        this.#giveUp(reason);
        return;
      }
      session.signal(exec.id, signal, { tree: true }).catch(() => undefined);
      if (signal === 'SIGINT') return;
      this.#timer = setTimeout(() => this.#giveUp(reason), END_GRACE_MS);
    });
  }

  close(): void {
    clearTimeout(this.#timer);
    this.#release();
  }
}
