/** A network namespace of our own, in which something is measured. */
import { randomBytes } from 'node:crypto';
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

  async [Symbol.asyncDispose](): Promise<void> {
    await ipBatch([`netns delete ${this.name}`]);
  }
}
