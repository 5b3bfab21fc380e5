/** A host of the tests' own on which users without any rights can open /dev/net/tun, for taps that root lends them. */
import { chown, chmod, mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { TestHost } from './test-host.ts';

/** See above. */
export class LendingHost implements AsyncDisposable {
  readonly host: TestHost;
  /** Each user has a directory in it that is called by his uid. */
  readonly dir: string;

  private constructor(host: TestHost, dir: string) {
    this.host = host;
    this.dir = dir;
  }

  static async start(uids: readonly number[]): Promise<LendingHost> {
    const host = await TestHost.start();
    const dir = await mkdtemp(join(tmpdir(), 'qa-lent-'));
    await chmod(dir, 0o711);
    for (const uid of uids) {
      const own = join(dir, String(uid));
      await mkdir(own);
      await chown(own, uid, uid);
    }
    // Where udev does not see to it, the device is root's alone: here it is a user's, too.
    await host.run('mknod', join(dir, 'tun'), 'c', '10', '200');
    await host.run('chmod', '666', join(dir, 'tun'));
    await host.run('mount', '--bind', join(dir, 'tun'), '/dev/net/tun');
    return new LendingHost(host, dir);
  }

  /** How a command is run as a user without any rights, who cannot write to the suite's own directory of temporary files. */
  rights(uid: number): string[] {
    return [
      ...['setpriv', `--reuid=${uid}`, `--regid=${uid}`, '--clear-groups', '--'],
      ...['env', `TMPDIR=${join(this.dir, String(uid))}`],
    ];
  }

  /** Runs a module as him; 0: as root. It has `options`, `join` and `refused` for VMs of his. */
  as(uid: number, body: string): Promise<unknown[]> {
    const own = join(this.dir, String(uid));
    const text = `
      const options = (n, more = {}) => ({ vmId: 'aaaaaaaaaa0' + n, mac: '02:00:00:00:00:0' + n, egress: {}, publish: [],
        runtimeDir: '${own}', logPath: '${own}/' + n + '.jsonl', ...more });
      const join = async (o) => {
        const { network: vm, whole } = await network.joinNetwork(o);
        await whole;
        await network.awaitNames(o);
        return vm;
      };
      const refused = (o) => join(o).catch((e) => say(failure(e)));
      ${body}`;
    return this.host.module(text, uid === 0 ? [] : this.rights(uid));
  }

  /** The own processes of the service that lends, one a line, without the shell that watches over them. */
  services(): Promise<string> {
    return this.#processes('node', 'network/service/main.ts /run/qmp-agent-taps');
  }

  /** That which reads the log for it. */
  async reader(): Promise<string> {
    return (await this.#processes('tcpdump', 'nflog:20814')).trim();
  }

  /** Those of this host. */
  #processes(name: string, words: string): Promise<string> {
    return this.host.run(
      'sh',
      '-c',
      `for p in $(pgrep -x ${name}); do
        tr '\\0' ' ' </proc/$p/cmdline | grep -q '${words}' || continue
        [ "$(readlink /proc/$p/ns/net)" = "$(readlink /proc/self/ns/net)" ] && echo $p
      done; true`,
    );
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.host[Symbol.asyncDispose]();
    await rm(this.dir, { recursive: true, force: true });
  }
}
