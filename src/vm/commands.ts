/** `vm.commands`: commands in the guest. */
import { NotFoundError } from '../errors.ts';
import type { GuestExec, GuestSession } from '../guest/index.ts';
import { eitherSignal } from './abort.ts';
import type { GuestAccess, WaitOptions } from './api.ts';
import { RunningCommand } from './command-handle.ts';
import { OutputCollector } from './command-output.ts';
import { isUnknownExec, noCommand } from './no-command.ts';
import { checkPid, commandSpec, outputLimit } from './command-spec.ts';
import type {
  CommandEncoding,
  CommandHandle,
  CommandInfo,
  CommandLine,
  CommandOptions,
  CommandResult,
  CommandsApi,
  OutputOptions,
} from './command-types.ts';

/** See {@link CommandsApi}. */
export class Commands implements CommandsApi {
  readonly #vm: GuestAccess;

  constructor(vm: GuestAccess) {
    this.#vm = vm;
  }

  run<E extends CommandEncoding = 'utf8'>(
    command: CommandLine,
    options: CommandOptions<E> & { background: true },
  ): Promise<CommandHandle<E>>;
  run<E extends CommandEncoding = 'utf8'>(
    command: CommandLine,
    options?: CommandOptions<E> & { background?: false | undefined },
  ): Promise<CommandResult<E>>;
  async run<E extends CommandEncoding = 'utf8'>(
    command: CommandLine,
    options: CommandOptions<E> = {},
  ): Promise<CommandHandle<E> | CommandResult<E>> {
    const spec = commandSpec(command, options);
    const collectors = collect(options);
    const { signal, requestTimeoutMs, reject = true } = options;
    const exec = await this.#call({ signal, timeoutMs: requestTimeoutMs }, (session, o) =>
      session.exec(spec, o),
    );
    const handle = new RunningCommand<E>({
      vm: this.#vm,
      exec,
      ...collectors,
      hasStdin: spec.stdin,
      reject,
      timeoutMs: spec.timeoutMs,
      signal,
    });
    handle.feed(options.stdin);
    return options.background === true ? handle : handle.wait();
  }

  async list(o: WaitOptions = {}): Promise<CommandInfo[]> {
    const execs = await this.#call(o, (session, bounds) => session.list(bounds));
    return execs
      .filter((exec) => exec.running)
      .map(({ pid, tag, command, cwd, user, startedAtMs }) => {
        const [cmd = '', ...args] = command;
        return { pid, tag, cmd, args, cwd, user, startedAt: new Date(startedAtMs) };
      });
  }

  async kill(pid: number, o: WaitOptions = {}): Promise<boolean> {
    try {
      await this.#onExec(pid, o, (session, id, bounds) =>
        session.signal(id, 'SIGKILL', { ...bounds, tree: true }),
      );
      return true;
    } catch (error) {
      if (error instanceof NotFoundError) return false;
      throw error;
    }
  }

  async sendStdin(pid: number, data: string | Uint8Array, o: WaitOptions = {}): Promise<void> {
    await this.#onExec(pid, o, (session, id, bounds) =>
      session.writeStdin(id, Buffer.from(data), bounds),
    );
  }

  async closeStdin(pid: number, o: WaitOptions = {}): Promise<void> {
    const nothing = Buffer.alloc(0);
    await this.#onExec(pid, o, (session, id, bounds) =>
      session.writeStdin(id, nothing, { ...bounds, eof: true }),
    );
  }

  async connect<E extends CommandEncoding = 'utf8'>(
    pid: number,
    options: OutputOptions<E> & WaitOptions = {},
  ): Promise<CommandHandle<E>> {
    const collectors = collect(options);
    const { signal, timeoutMs } = options;
    const exec = await this.#onExec(pid, { signal, timeoutMs }, (session, id, o) =>
      session.attach(id, o),
    );
    return new RunningCommand<E>({
      vm: this.#vm,
      exec,
      ...collectors,
      hasStdin: undefined,
      reject: true,
    });
  }

  /** Does something with the running exec of a pid. @throws NotFoundError */
  async #onExec<T extends GuestExec | void>(
    pid: number,
    o: WaitOptions,
    action: (session: GuestSession, id: string, o: WaitOptions) => Promise<T>,
  ): Promise<T> {
    checkPid(pid);
    return this.#call(o, async (session, bounds) => {
      const exec = (await session.list(bounds)).find((one) => one.running && one.pid === pid);
      if (exec === undefined) throw noCommand(this.#vm.id, pid);
      try {
        return await action(session, exec.id, bounds);
      } catch (error) {
        throw isUnknownExec(error) ? noCommand(this.#vm.id, pid) : error;
      }
    });
  }

  /** One call on the session; why it failed is the VM's to say. */
  async #call<T>(
    o: WaitOptions,
    call: (session: GuestSession, o: WaitOptions) => Promise<T>,
  ): Promise<T> {
    const startedAt = performance.now();
    const session = await this.#vm.guest(o);
    const { fault } = this.#vm;
    const signal = eitherSignal(fault, o.signal);
    const timeoutMs =
      o.timeoutMs && Math.max(1, Math.ceil(o.timeoutMs - (performance.now() - startedAt)));
    try {
      return await call(session, { signal, timeoutMs });
    } catch (error) {
      if (o.signal?.aborted === true && error === o.signal.reason) throw error;
      throw await this.#vm.explain(error);
    }
  }
}

function collect<E extends CommandEncoding>(
  o: OutputOptions<E>,
): { stdout: OutputCollector<E>; stderr: OutputCollector<E> } {
  const encoding = o.encoding ?? ('utf8' as E);
  const maxBytes = outputLimit(o.maxOutputBytes);
  return {
    stdout: new OutputCollector({ encoding, maxBytes, listener: o.onStdout }),
    stderr: new OutputCollector({ encoding, maxBytes, listener: o.onStderr }),
  };
}
