/** A network namespace of our own, in which something is measured. */
import { once } from 'node:events';
import { open, type FileHandle } from 'node:fs/promises';
import { execa } from 'execa';
import { HostError, NetworkInterfaceError, TimeoutError } from '../errors.ts';
import { inNamespace, ipBatch } from './ip-command.ts';

/** unshare takes some ms; on an emulated machine many times that. */
const MAKE_TIMEOUT_MS = 30_000;

/**
 * Gone with it: all that is in it. It has no name and is mounted nowhere, and only a descriptor of this process keeps it
 * (network_namespaces(7)): so it goes with the process, too, by whatever that ends.
 */
export class NetworkNamespace implements AsyncDisposable {
  readonly #handle: FileHandle;

  private constructor(handle: FileHandle) {
    this.#handle = handle;
  }

  /** @throws HostError no permission, no unshare; TimeoutError; the signal's reason. Nothing is left then */
  static async make({ signal }: { signal?: AbortSignal | undefined }): Promise<NetworkNamespace> {
    signal?.throwIfAborted();
    // `cat` lives in it until it is open here. It ends with its input: with this process, too.
    const child = execa('unshare', ['--net', '--', 'cat'], {
      ...{ reject: false, timeout: MAKE_TIMEOUT_MS, killSignal: 'SIGKILL', env: { LC_ALL: 'C' } },
      ...(signal === undefined ? {} : { cancelSignal: signal }),
    });
    child.stdin.on('error', () => undefined); // told by its end
    child.stdin.write('\n');
    let handle: FileHandle | undefined;
    let failure: unknown;
    try {
      const isThere = await Promise.race([
        once(child.stdout, 'data').then(() => true),
        child.then(() => false),
      ]);
      if (isThere) handle = await open(`/proc/${child.pid}/ns/net`);
    } catch (error) {
      failure = error; // of a child that was killed meanwhile, say
    }
    child.stdin.end();
    const result = await child;
    if (handle !== undefined && signal?.aborted !== true) return new NetworkNamespace(handle);
    await handle?.close();
    signal?.throwIfAborted();
    if (result.timedOut) throw new TimeoutError('unshare', MAKE_TIMEOUT_MS);
    throw notMade(result, failure);
  }

  /** Leads to it, for this process and its children. */
  get path(): string {
    return `/proc/${process.pid}/fd/${this.#handle.fd}`;
  }

  /** Commands of `ip` in it. @throws as `ipBatch` */
  ip(commands: readonly string[], o: { signal?: AbortSignal | undefined } = {}): Promise<void> {
    return ipBatch(commands, { ...o, namespace: this.path });
  }

  /** How a program is run in it. */
  command(argv: readonly string[]): [file: string, ...args: string[]] {
    return inNamespace(this.path, argv);
  }

  /**
   * Runs a program in it to its end, or to that of this process.
   * @returns what it printed
   * @throws NetworkInterfaceError it failed, with what it complained of; TimeoutError; the signal's reason
   */
  async run(
    argv: readonly string[],
    { signal, timeoutMs }: { signal?: AbortSignal | undefined; timeoutMs: number },
  ): Promise<string> {
    const [file, ...args] = this.command(['setpriv', '--pdeathsig', 'KILL', '--', ...argv]);
    const result = await execa(file, args, {
      ...{ reject: false, timeout: timeoutMs, killSignal: 'SIGKILL' },
      ...(signal === undefined ? {} : { cancelSignal: signal }),
    });
    signal?.throwIfAborted();
    const [program = ''] = argv;
    if (result.timedOut) throw new TimeoutError(program, timeoutMs);
    if (!result.failed) return result.stdout;
    const said = result.stderr.trim().split('\n').at(-1) || 'it said nothing';
    throw new NetworkInterfaceError(
      `${program} failed in a network namespace of its own: ${said}`,
      {
        stderr: result.stderr,
        hint: 'Nothing of the benchmark is left; run it again.',
      },
    );
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#handle.close();
  }
}

/** What the user shall see. */
function notMade(
  { code, stderr }: { code?: string | undefined; stderr: string },
  cause: unknown,
): HostError | NetworkInterfaceError {
  if (code === 'ENOENT') {
    return new HostError('ERR_HOST_TOOL', 'unshare is not installed', {
      hint: 'Install it: apt-get install util-linux.',
    });
  }
  if (/Operation not permitted/.test(stderr)) {
    return new HostError('ERR_HOST_PERMISSION', 'this process may not make network namespaces', {
      hint: 'Run as root or with CAP_SYS_ADMIN.',
      cause,
    });
  }
  const said = stderr.trim() || (cause instanceof Error ? cause.message : 'it said nothing');
  return new NetworkInterfaceError(`no network namespace could be made: ${said}`, {
    stderr,
    hint: 'Nothing of the benchmark is left; run it again.',
  });
}
