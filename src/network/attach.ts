/**
 * A VM's place on the host's network: a tap, and rules that are there before it goes up. Taken back in the
 * reverse order; nothing of it is anybody else's.
 */
import { createHash } from 'node:crypto';
import {
  addVm,
  checkVm,
  NftClient,
  remainsOf,
  removeVm,
  type NetworkPolicy,
  type VmNetwork,
} from '../../nft/index.ts';
import { NetworkRulesError, NetworkSetupError } from '../errors.ts';
import { step } from '../steps.ts';
import { endpointAt, firstFree, parsePool, type Endpoint } from './endpoint.ts';
import { raiseFlushGuard } from './flush-guard.ts';
import { nextGeneration, withHostNetwork } from './host-dir.ts';
import { isForwarding } from './setup.ts';
import {
  existingTaps,
  interfaces,
  makeTap,
  ownerOf,
  raiseTap,
  removeTap,
  type TapOwner,
} from './tap.ts';

/** What {@link attachVm} is given. */
export interface AttachOptions {
  readonly vmId: string;
  /** See {@link stateKey}. */
  readonly state: string;
  /** The guest's MAC address. */
  readonly mac: string;
  readonly policy: NetworkPolicy;
  /** CIDR that the addresses are from. */
  readonly pool: string;
  readonly signal?: AbortSignal | undefined;
}

/** Tells VMs of one state directory from those of others on this host. */
export function stateKey(runtimeDir: string): string {
  return createHash('sha256').update(runtimeDir).digest('hex').slice(0, 12);
}

/**
 * Gives a VM its tap, address and rules.
 * @throws NetworkSetupError the host does not forward, or has no address left
 * @throws HostError no permission, or a program is missing; NetworkPolicyError; NetworkRulesError;
 *   ConfigError `network.pool`; TimeoutError; the signal's reason. Nothing is left then
 */
export async function attachVm(o: AttachOptions): Promise<VmNetwork> {
  const { vmId, signal } = o;
  const pool = parsePool(o.pool);
  checkVm(networkOf(endpointAt(pool, 1), 0, o)); // before anything is made
  await checkForwarding();
  step('network.attach', 'tap', vmId);
  const made = await withHostNetwork(signal, async () => {
    const index = firstFree(pool, await interfaces());
    if (index === undefined) {
      throw new NetworkSetupError(`all ${pool.capacity - 1} networks of ${pool.cidr} are taken`, {
        hint: 'Remove VMs, run `qmp-agent gc`, or set network.pool to a larger network.',
        vmId,
      });
    }
    const endpoint = endpointAt(pool, index);
    const generation = await nextGeneration();
    await makeTap(endpoint, { state: o.state, vmId }).catch(async (error: unknown) => {
      // Its first step may have been done; what another has made says whose it is.
      if ((await ownerOf(endpoint.tap))?.vmId === vmId) await removeTap(endpoint.tap);
      throw error;
    });
    return { endpoint, generation };
  });
  const network = networkOf(made.endpoint, made.generation, o);
  try {
    step('network.attach', 'rules', vmId);
    await addRules(network, signal);
    step('network.attach', 'up', vmId);
    await raiseTap(made.endpoint, o.mac, { signal });
    return network;
  } catch (error) {
    await detachVm(network, vmId).catch(() => undefined); // gc will
    throw error;
  }
}

/**
 * Takes all of it back; no error where it is gone. The tap is the last to go: as long as it is there, no
 * other VM can have its name, and what its group sends is dropped without rules.
 */
export async function detachVm(network: VmNetwork, vmId: string): Promise<void> {
  if ((await ownerOf(network.tap))?.vmId !== vmId) return; // gone, and another VM may have it by now
  step('network.detach', 'rules', vmId);
  try {
    await new NftClient().apply(removeVm(remainsOf(network))).catch(ignoreGone);
  } finally {
    step('network.detach', 'tap', vmId);
    await removeTap(network.tap); // whatever is wrong with the rules: gc takes those without a tap
  }
}

/**
 * Takes away taps and rules of VMs that are gone.
 * @param isWanted whether this VM of the state directory still has its tap
 * @returns names of the taps
 */
export async function sweepTaps(
  state: string,
  isWanted: (vmId: string) => Promise<boolean>,
  o: { signal?: AbortSignal | undefined } = {},
): Promise<string[]> {
  const mine = (await existingTaps(o)).filter(({ owner }) => owner?.state === state);
  const gone: string[] = [];
  for (const { tap, owner } of mine) {
    if (owner === undefined || (await isWanted(owner.vmId))) continue;
    if (await takeAway(tap, owner, o)) gone.push(tap);
  }
  await sweepRules();
  return gone;
}

/** Takes away taps of one VM of which nothing else is known. */
export async function removeTapsOf(owner: TapOwner): Promise<void> {
  for (const existing of await existingTaps()) {
    const { tap } = existing;
    if (existing.owner?.vmId === owner.vmId && existing.owner.state === owner.state)
      await takeAway(tap, owner, {});
  }
}

/** @returns whether it was there */
function takeAway(
  tap: string,
  { vmId }: TapOwner,
  o: { signal?: AbortSignal | undefined },
): Promise<boolean> {
  return withHostNetwork(o.signal, async () => {
    if ((await ownerOf(tap))?.vmId !== vmId) return false; // another VM has it by now
    await removeLeft(tap);
    await removeTap(tap, o);
    return true;
  });
}

/** Gives rules again to VMs whose rules somebody has flushed; until then nothing of theirs gets anywhere. */
export async function mendRules(
  networks: readonly VmNetwork[],
  o: { signal?: AbortSignal | undefined } = {},
): Promise<void> {
  if (networks.length === 0) return;
  const [ruled, there] = [new Set(await new NftClient().taps(o)), new Set(await interfaces())];
  for (const network of networks) {
    if (there.has(network.tap) && !ruled.has(network.tap)) await addRules(network, o.signal);
  }
}

/** Rules of taps that are not there: whose ever they were, they let nothing through any more. */
async function sweepRules(): Promise<void> {
  const nft = new NftClient();
  const there = new Set(await interfaces());
  const stale = (await nft.taps()).filter((tap) => !there.has(tap));
  if (stale.length === 0) return;
  await withHostNetwork(undefined, async () => {
    const now = new Set(await interfaces());
    for (const remains of await nft.remains()) {
      if (!now.has(remains.tap)) await nft.apply(removeVm(remains)).catch(ignoreGone);
    }
  });
}

async function addRules(network: VmNetwork, signal: AbortSignal | undefined): Promise<void> {
  const nft = new NftClient();
  try {
    await nft.apply(addVm(network), { signal });
  } catch (error) {
    // The first VM since the boot, or since somebody flushed the ruleset; or an earlier VM's rules are left.
    if (!(error instanceof NetworkRulesError)) throw error;
    const isNew = await nft.ensureBase({ signal });
    await (isNew ? raiseFlushGuard({ signal }) : removeLeft(network.tap));
    await nft.apply(addVm(network), { signal });
  }
}

/** Whatever rules there are of a tap. */
async function removeLeft(tap: string): Promise<void> {
  const nft = new NftClient();
  for (const remains of await nft.remains()) {
    if (remains.tap === tap) await nft.apply(removeVm(remains)).catch(ignoreGone);
  }
}

function networkOf(
  { tap, guestAddress, gatewayAddress }: Endpoint,
  generation: number,
  { mac, policy }: AttachOptions,
): VmNetwork {
  return { tap, mac, guestAddress, gatewayAddress, generation, policy };
}

async function checkForwarding(): Promise<void> {
  if (await isForwarding()) return;
  throw new NetworkSetupError('this host does not forward packets between its interfaces', {
    hint: 'Run as root, once: qmp-agent setup network. Or take --network isolated, or --network user.',
  });
}

function ignoreGone(error: unknown): void {
  if (!(error instanceof NetworkRulesError && error.reason === 'missing')) throw error;
}
