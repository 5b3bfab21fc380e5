/**
 * The tap of a VM that runs, in a namespace of its own, where the host's end of it is measured with the VM's rules and
 * without any. In the host's own namespace there is never a tap without rules, not for a benchmark either: there the
 * guest would be free, and whoever else looks after rules would put them back.
 */
import { addVm, NftClient, type VmNetwork } from '../../nft/index.ts';
import { lowerFlushGuard, raiseFlushGuard } from './flush-guard.ts';
import { withHostNetwork } from './host-dir.ts';
import { ipBatch } from './ip-command.ts';
import { leaveNetwork, requireEntry } from './join.ts';
import { NetworkNamespace } from './namespace.ts';
import {
  figureProgram,
  type PathPlan,
  tcpFigures,
  tcpServer,
  type TcpFigure,
} from './path-programs.ts';
import { raiseTap } from './tap.ts';

/** Any that a user of the guest may listen on. */
const PORT = 7_000;
/** A figure takes a second at most, and the start of a program on a busy host some. */
const TIMEOUT_MS = 30_000;
/** Guests may be emulated: less than of a path without one. */
const SIZES = { roundTrips: 100, transferMib: 16, connections: 100 };

/** What the guest has to run, `node -e …`, while it is measured. Prints `ready`. */
export const GUEST_SERVER = tcpServer({ ...SIZES, address: '0.0.0.0', port: PORT });

/** See above. The VM has no network any more, also when this is gone. */
export class TapLab implements AsyncDisposable {
  readonly #namespace: NetworkNamespace;
  readonly #network: VmNetwork;
  readonly #nft: NftClient;
  readonly #program: string;
  #hasRules = false;

  private constructor(namespace: NetworkNamespace, network: VmNetwork) {
    this.#namespace = namespace;
    this.#network = network;
    this.#nft = new NftClient({ command: namespace.command(['nft']) });
    const plan: PathPlan = { ...SIZES, address: network.guestAddress, port: PORT };
    this.#program = figureProgram(tcpFigures(plan));
  }

  /**
   * Takes a VM's tap away from the host; the tap has no rules then.
   * @param o.vmId who lets it go: nobody else may need its network
   * @throws NetworkSetupError it has no tap; HostError no permission; NetworkInterfaceError; NetworkRulesError;
   *   TimeoutError; the signal's reason. Nothing but the VM is left then
   */
  static async take(o: {
    runtimeDir: string;
    vmId: string;
    signal?: AbortSignal | undefined;
  }): Promise<TapLab> {
    const { runtimeDir, vmId, signal } = o;
    const { network } = await requireEntry(runtimeDir, vmId);
    const namespace = await NetworkNamespace.make({ signal });
    try {
      // An interface that changes its namespace goes down and loses its addresses (dev_change_net_namespace, net/core/dev.c).
      const move = `link set dev ${network.tap} netns ${namespace.path}`;
      await withHostNetwork(signal, () => ipBatch([move], { signal }));
      // Its name and addresses are free for others as of now.
      await leaveNetwork(runtimeDir, vmId);
      await raiseTap({ ...network, v6: undefined }, network.mac, {
        namespace: namespace.path,
        signal,
      });
      return new TapLab(namespace, network);
    } catch (error) {
      await namespace[Symbol.asyncDispose]().catch(() => undefined); // the error is what counts
      throw error;
    }
  }

  /** Takes one figure; the host is the client. @param o.rules whether with all that the host has for the VM */
  async take(
    figure: TcpFigure,
    { rules, signal }: { rules: boolean; signal?: AbortSignal | undefined },
  ): Promise<number> {
    if (rules !== this.#hasRules) await this.#setRules(rules, { signal });
    const argv = [process.execPath, '-e', this.#program, figure];
    return Number(await this.#namespace.run(argv, { signal, timeoutMs: TIMEOUT_MS }));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#namespace[Symbol.asyncDispose]();
  }

  async #setRules(rules: boolean, o: { signal: AbortSignal | undefined }): Promise<void> {
    const call = { ...o, namespace: this.#namespace.path };
    const pool = `${this.#network.guestAddress}/32`;
    if (rules) {
      await raiseFlushGuard(pool, call);
      await this.#nft.ensureBase(o);
      await this.#nft.apply(addVm(this.#network), o);
    } else {
      await this.#nft.removeBase(o);
      await lowerFlushGuard(pool, call);
    }
    this.#hasRules = rules;
  }
}
