/** A network namespace of our own, in which something is measured. */
import { randomBytes } from 'node:crypto';
import { execa } from 'execa';
import { NetworkInterfaceError, TimeoutError } from '../errors.ts';
import { ipBatch } from './ip-command.ts';

/** Gone with it: all that is in it. */
export class NetworkNamespace implements AsyncDisposable {
  readonly name: string;

  private constructor(name: string) {
    this.name = name;
  }

  /** @throws HostError no permission; the signal's reason. Nothing is left then */
  static async make(o: { signal?: AbortSignal | undefined }): Promise<NetworkNamespace> {
    const name = `qmp-agent-bench-${randomBytes(4).toString('hex')}`;
    const namespace = new NetworkNamespace(name);
    try {
      await ipBatch([`netns add ${name}`], o);
    } catch (error) {
      await namespace[Symbol.asyncDispose]().catch(() => undefined); // it was killed when it had made it, say
      throw error;
    }
    return namespace;
  }

  /** Commands of `ip` in it. @throws as `ipBatch` */
  ip(commands: readonly string[], o: { signal?: AbortSignal | undefined } = {}): Promise<void> {
    return ipBatch(commands, { ...o, namespace: this.name });
  }

  /** How a program is run in it. */
  command(argv: readonly string[]): [file: string, ...args: string[]] {
    return ['ip', 'netns', 'exec', this.name, ...argv];
  }

  /**
   * Runs a program in it to its end.
   * @returns what it printed
   * @throws NetworkInterfaceError it failed, with what it complained of; TimeoutError; the signal's reason
   */
  async run(
    argv: readonly string[],
    { signal, timeoutMs }: { signal?: AbortSignal | undefined; timeoutMs: number },
  ): Promise<string> {
    const [file, ...args] = this.command(argv);
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
      `${program} failed in network namespace ${this.name}: ${said}`,
      {
        stderr: result.stderr,
        hint: 'Nothing of the benchmark is left; run it again.',
      },
    );
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await ipBatch([`netns delete ${this.name}`]);
  }
}
