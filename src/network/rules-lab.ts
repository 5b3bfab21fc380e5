/** A network namespace full of VMs that are only rules and taps: what one more costs there is measured. */
import {
  addVm,
  NftClient,
  remainsOf,
  removeVm,
  TAP_GROUP,
  type VmNetwork,
} from '../../nft/index.ts';
import { DEFAULT_POOL, endpointAt, parsePool } from './endpoint.ts';
import { NetworkNamespace } from './namespace.ts';
import { makePolicy } from './policy.ts';

/** VMs that are added by one transaction while it is filled. */
const AT_ONCE = 50;

/** See above. Gone with it: nothing of it is in the host's own namespace. */
export class RulesLab implements AsyncDisposable {
  readonly #namespace: NetworkNamespace;
  readonly #nft: NftClient;
  readonly #policy = makePolicy({}).rules;
  readonly #pool = parsePool(DEFAULT_POOL);
  #count = 0;

  private constructor(namespace: NetworkNamespace) {
    this.#namespace = namespace;
    this.#nft = new NftClient({ command: namespace.command(['nft']) });
  }

  /**
   * @param o.namespace it is its own afterwards. Default: a new one
   * @throws HostError no permission; NetworkRulesError
   */
  static async open(o: {
    signal?: AbortSignal | undefined;
    namespace?: NetworkNamespace;
  }): Promise<RulesLab> {
    const lab = new RulesLab(o.namespace ?? (await NetworkNamespace.make(o)));
    try {
      await lab.#nft.ensureBase(o);
      return lab;
    } catch (error) {
      await lab[Symbol.asyncDispose]();
      throw error;
    }
  }

  /** Adds VMs until there are so many. */
  async fill(count: number, o: { signal?: AbortSignal | undefined }): Promise<void> {
    while (this.#count < count) {
      const more = Math.min(AT_ONCE, count - this.#count);
      const vms = Array.from({ length: more }, (_, n) => this.#vm(this.#count + n + 1));
      await this.#makeTaps(vms, o);
      await this.#nft.apply(vms.flatMap(addVm), o);
      this.#count += more;
    }
  }

  /** Adds one VM's rules and takes them away. @returns ms of the first, nft's process included */
  async addOne(o: { signal?: AbortSignal | undefined }): Promise<number> {
    const vm = this.#vm(this.#count + 1);
    await this.#makeTaps([vm], o);
    const transaction = addVm(vm);
    const startedAt = performance.now();
    await this.#nft.apply(transaction, o);
    const ms = performance.now() - startedAt;
    await this.#nft.apply(removeVm(remainsOf(vm)), o);
    await this.#namespace.ip([`link delete dev ${vm.tap}`], o);
    return ms;
  }

  /** The VM that comes next, whose interface is for the caller to make before {@link addRules}. Without bounds, and with UDP. */
  next(): VmNetwork {
    const policy = makePolicy({ allowPorts: ['443/udp'] }).rules;
    return { ...this.#vm(this.#count + 1), policy: { ...policy, limits: {} } };
  }

  /** Gives {@link next} its rules. */
  async addRules(vm: VmNetwork, o: { signal?: AbortSignal | undefined }): Promise<void> {
    await this.#nft.apply(addVm(vm), o);
    this.#count += 1;
  }

  /** ms of a transaction that is about nothing: what any costs. */
  async floor(o: { signal?: AbortSignal | undefined }): Promise<number> {
    const startedAt = performance.now();
    await this.#nft.apply([{ add: { table: { family: 'inet', name: 'qmp_agent' } } }], o);
    return performance.now() - startedAt;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#namespace[Symbol.asyncDispose]();
  }

  async #makeTaps(
    vms: readonly VmNetwork[],
    o: { signal?: AbortSignal | undefined },
  ): Promise<void> {
    const commands = vms.flatMap(({ tap }) => [
      `tuntap add dev ${tap} mode tap`,
      `link set dev ${tap} group ${TAP_GROUP}`,
    ]);
    await this.#namespace.ip(commands, o);
  }

  #vm(index: number): VmNetwork {
    const { tap, guestAddress, gatewayAddress } = endpointAt(this.#pool, index);
    const mac = `02:00:00:00:${(index >> 8).toString(16).padStart(2, '0')}:${(index & 255).toString(16).padStart(2, '0')}`;
    return { tap, guestAddress, gatewayAddress, mac, generation: 0, policy: this.#policy };
  }
}
