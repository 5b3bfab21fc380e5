/**
 * A host of the tests' own: network and mount namespaces that one process keeps alive. What runs in it finds
 * no interface but lo, no rules, and settings that are nobody else's.
 */
import { execFile, spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { promisify } from 'node:util';

const execFileAsync = promisify(execFile);

/** What it keeps to itself besides its network: sysfs shows the interfaces of its mounter's namespace. */
const SETUP = `
mount --make-rprivate /
mount -t sysfs sysfs /sys
mkdir -p /run/qmp-agent-network /run/qmp-agent-taps /etc/sysctl.d
mount -t tmpfs tmpfs /run/qmp-agent-network
mount -t tmpfs tmpfs /run/qmp-agent-taps
mount -t tmpfs tmpfs /etc/sysctl.d
ip link set lo up
sysctl -q -w net.ipv4.ip_forward=0 net.ipv6.conf.all.forwarding=0
echo ready
exec sleep infinity
`;
const ROOT = join(import.meta.dirname, '../../..');
const MAX_OUTPUT_BYTES = 16 * 2 ** 20;

/** See above. */
export class TestHost implements AsyncDisposable {
  readonly #keeper: ChildProcess;

  private constructor(keeper: ChildProcess) {
    this.#keeper = keeper;
  }

  static async start(): Promise<TestHost> {
    const keeper = spawn('unshare', ['--net', '--mount', 'sh', '-ec', SETUP], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const ended = once(keeper, 'exit').then(() => {
      throw new Error('the namespaces of the test could not be made');
    });
    await Promise.race([once(keeper.stdout, 'data'), ended]);
    ended.catch(() => undefined);
    return new TestHost(keeper);
  }

  /** For programs that enter it. */
  get pid(): number {
    return this.#keeper.pid ?? 0;
  }

  /** How a command is run in it. */
  command(argv: readonly string[]): [file: string, args: string[]] {
    return ['nsenter', ['-t', String(this.pid), '--net', '--mount', '--', ...argv]];
  }

  /** @returns what it wrote to stdout */
  async run(...argv: string[]): Promise<string> {
    const [file, args] = this.command(argv);
    const { stdout } = await execFileAsync(file, args, { maxBuffer: MAX_OUTPUT_BYTES, cwd: ROOT });
    return stdout;
  }

  /**
   * Runs the text of a module in JavaScript, with the network and the rules imported.
   * @param as what it is run by: `setpriv …`, say
   * @returns what it gave to `say`, in order
   */
  async module(body: string, as: readonly string[] = []): Promise<unknown[]> {
    const text = `${body}\nprocess.stdout.write(JSON.stringify(said));`;
    return JSON.parse(await this.run(...as, ...moduleArgv(text))) as unknown[];
  }

  /** How the text of a module is run in it, as {@link module} does; what it writes is its own affair. */
  moduleCommand(body: string): [file: string, args: string[]] {
    return this.command(moduleArgv(body));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const gone = once(this.#keeper, 'exit');
    if (this.#keeper.kill('SIGKILL')) await gone;
  }
}

/** With the network and the rules imported, and `ownNamespaces`: those that it keeps, which may be no other's. */
function moduleArgv(body: string): string[] {
  const imports = `
    import * as hostFiles from 'node:fs';
    const linkOf = (path) => { try { return hostFiles.readlinkSync(path); } catch { return ''; } };
    const ownNamespaces = () =>
      hostFiles.readdirSync('/proc/self/fd').map((fd) => linkOf('/proc/self/fd/' + fd)).filter((to) => to.startsWith('net:'));
    import * as api from '${ROOT}/src/network/index.ts';
    import * as attach from '${ROOT}/src/network/attach.ts';
    import { DEFAULT_POOL } from '${ROOT}/src/network/endpoint.ts';
    import { isSetUp } from '${ROOT}/src/network/setup.ts';
    const network = { ...api, ...attach, DEFAULT_POOL, isSetUp };
    import * as nft from '${ROOT}/nft/index.ts';
    const said = [];
    const say = (value) => void said.push(value);
    const failure = (e) => ({ code: e.code, message: e.message, hint: e.hint });`;
  const tsx = join(ROOT, 'node_modules/tsx/dist/loader.mjs');
  const flags = ['--import', tsx, '--input-type=module', '--eval'];
  return [process.execPath, ...flags, `${imports}\n${body}`];
}
