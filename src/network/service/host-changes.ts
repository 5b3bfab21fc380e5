/**
 * What changes on the host while VMs run: networks that it joins and leaves. Looked at beside the entries and not before
 * them, as this takes the host's lock, which somebody may hold who waits for the service.
 */
import { followHostNetworks } from '../host-networks.ts';
import { routesInto } from '../host-routes.ts';
import { hostPools } from '../host-settings.ts';

/** Every how manieth look is one at the pool, too, of which nothing follows but words. */
const POOL_LOOKS = 15;
/** From one look to the next, as a multiple of what it took: a host may have all routes there are. */
const REST_FACTOR = 20;

/** See above. */
export class HostChanges implements AsyncDisposable {
  readonly #say: (text: string) => void;
  readonly #over = new AbortController();
  #looking: Promise<void> | undefined;
  #looks = 0;
  #restUntil = 0;
  /** What was said last of each, so that it is said once. */
  readonly #said = new Map<string, string>();

  /** @param say for what it finds, and what goes wrong */
  constructor(say: (text: string) => void) {
    this.#say = say;
  }

  /** Begins a look, unless one is under way. Never rejects. @param o.hasIpv6 whether there is a VM with IPv6, and so anything to be shut */
  look(o: { hasIpv6: boolean }): Promise<void> {
    this.#looking ??= this.#lookAt(o).finally(() => (this.#looking = undefined));
    return this.#looking;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#over.abort(new Error('the network service ends'));
    await this.#looking;
  }

  async #lookAt({ hasIpv6 }: { hasIpv6: boolean }): Promise<void> {
    const began = performance.now();
    if (began < this.#restUntil) return;
    if (hasIpv6) await this.#told('networks', () => this.#networks());
    if (this.#looks++ % POOL_LOOKS === 0) await this.#told('pool', () => this.#pool());
    const ended = performance.now();
    this.#restUntil = ended + REST_FACTOR * (ended - began);
  }

  async #networks(): Promise<string> {
    const networks = await followHostNetworks({ signal: this.#over.signal });
    return networks === undefined
      ? ''
      : `the host's own networks are now ${networks.join(', ') || 'none'}`;
  }

  async #pool(): Promise<string> {
    const { pool } = await hostPools();
    const routes = await routesInto(pool, { signal: this.#over.signal });
    return routes.length === 0
      ? ''
      : `VMs have addresses of ${pool}, into which the host has routes now (${routes.join('; ')}): see qmp-agent doctor`;
  }

  /** Says what it comes to where that is another thing than the last time. Never rejects. */
  async #told(what: string, look: () => Promise<string>): Promise<void> {
    const text = await look().catch((error: unknown) =>
      error instanceof Error ? error.message : String(error),
    );
    if (text !== '' && text !== this.#said.get(what) && !this.#over.signal.aborted) this.#say(text);
    this.#said.set(what, text);
  }
}
