/** A network namespace of our own, in which something is measured. */
import { randomBytes } from 'node:crypto';
import { ipBatch } from './ip-command.ts';

/** Gone with it: all that is in it. */
export class NetworkNamespace implements AsyncDisposable {
  readonly name: string;

  private constructor(name: string) {
    this.name = name;
  }

  /** @throws HostError no permission */
  static async make(o: { signal?: AbortSignal | undefined }): Promise<NetworkNamespace> {
    const name = `qmp-agent-bench-${randomBytes(4).toString('hex')}`;
    await ipBatch([`netns add ${name}`], o);
    return new NetworkNamespace(name);
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
