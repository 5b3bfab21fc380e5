/**
 * A VM's place on the host's network: a tap, and rules that are there before it goes up. Taken back in the
 * reverse order; nothing of it is anybody else's.
 */
import { createHash } from 'node:crypto';
import {
  addVm,
  checkVm,
  NftClient,
  removeBridgeGuard,
  removeVm,
  setHostNetworks,
  type NetworkPolicy,
  type NftTransaction,
  type VmNetwork,
} from '../../nft/index.ts';
import { HostError, NetworkRulesError, NetworkSetupError } from '../errors.ts';
import { step } from '../steps.ts';
import { DEFAULT_POOL, endpointAt, firstFree, parsePool, type Endpoint } from './endpoint.ts';
import { raiseFlushGuard } from './flush-guard.ts';
import { nextGeneration, withHostNetwork } from './host-dir.ts';
import { hostNetworks } from './host-networks.ts';
import { isForwarding } from './forwarding.ts';
import { hostPools } from './host-settings.ts';
import { forgetMaking, tapsInMaking } from './making.ts';
import {
  existingTaps,
  interfaces,
  isBridged,
  lookAtTap,
  makeOrRemove,
  makeTap,
  raiseTap,
  removeTap,
  type TapOwner,
} from './tap.ts';
import { parseUla, type UlaPool } from './ula.ts';

/** How often rules are looked at anew that change under the look. */
const MAX_TRIES = 3;

/** What {@link takeTap} is given. */
export interface AttachOptions {
  readonly vmId: string;
  /** See {@link stateKey}. */
  readonly state: string;
  /** The guest's MAC address. */
  readonly mac: string;
  readonly policy: NetworkPolicy;
  /** Whether it has IPv6 addresses, too. Default false. */
  readonly ipv6?: boolean | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** Tells VMs of one state directory from those of others on this host. */
export function stateKey(runtimeDir: string): string {
  return createHash('sha256').update(runtimeDir).digest('hex').slice(0, 12);
}

/** A VM's place on the network. Its tap is there, and lets nothing through before the rest is. */
export interface Place {
  readonly network: VmNetwork;
  /**
   * The rules are there and the tap is up. Where it rejects the tap stays, and with it that nothing gets through:
   * a QEMU that is about to open it would make one of its own that no rule knows. Who started that QEMU gives the
   * tap back once it is dead. @throws see {@link takeTap}
   */
  readonly whole: Promise<void>;
}

/**
 * Gives a VM its tap and address. Its rules come while the caller starts QEMU, which needs no more than the tap.
 * @throws NetworkSetupError the host does not forward, or has no address left, or is not set up for IPv6
 * @throws HostError no permission, or a program is missing; NetworkPolicyError; NetworkRulesError;
 *   ConfigError `network.pool`, `network.ipv6`; TimeoutError; the signal's reason. Nothing is left then
 */
export async function takeTap(o: AttachOptions): Promise<Place> {
  const { vmId } = o;
  checkVm(networkOf(endpointAt(parsePool(DEFAULT_POOL), 1), 0, o)); // before anything is made
  await checkForwarding();
  step('network.attach', 'tap', vmId);
  const { endpoint, generation } = await withHostNetwork(o.signal, async () => {
    const free = await freeEndpoint(o);
    const next = await nextGeneration(free.tap);
    const owner = { state: o.state, vmId };
    await makeOrRemove(free.tap, vmId, () => makeTap(free, owner));
    return { endpoint: free, generation: next };
  });
  const network = networkOf(endpoint, generation, o);
  const whole = finish(network, endpoint, o);
  whole.catch(() => undefined); // who waits for it hears of it
  return { network, whole };
}

/** Under the host's lock. */
async function freeEndpoint({ vmId, ipv6 }: AttachOptions): Promise<Endpoint> {
  const pools = await hostPools();
  const pool = parsePool(pools.pool);
  const ula = ipv6 === true ? await requireUla(pools.ula, vmId) : undefined;
  const smaller = ula !== undefined && ula.capacity < pool.capacity ? ula : pool;
  const index = firstFree(smaller, await interfaces());
  if (index !== undefined) return endpointAt(pool, index, ula);
  const flag = smaller === ula ? '--ipv6' : '--pool';
  throw new NetworkSetupError(`all ${smaller.capacity - 1} networks of ${smaller.cidr} are taken`, {
    hint: `Remove VMs, run \`qmp-agent gc\`, or have a larger network: qmp-agent setup network ${flag} CIDR.`,
    vmId,
  });
}

async function requireUla(ula: string | undefined, vmId: string): Promise<UlaPool> {
  if (ula !== undefined && (await isForwarding(6))) return parseUla(ula);
  const what =
    ula === undefined
      ? 'this host is not set up to give VMs IPv6'
      : 'this host does not forward IPv6 packets between its interfaces';
  throw new NetworkSetupError(what, {
    hint: 'Run as root, once: qmp-agent setup network --ipv6. Or have the VM without IPv6.',
    vmId,
  });
}

async function finish(
  network: VmNetwork,
  endpoint: Endpoint,
  { vmId, mac, signal }: AttachOptions,
): Promise<void> {
  step('network.attach', 'rules', vmId);
  await addRules(network, signal);
  step('network.attach', 'up', vmId);
  await raiseTap(endpoint, mac, { signal });
}

/**
 * Takes all of it back; no error where it is gone. The tap is the last to go: as long as it is there, no
 * other VM can have its name, and what its group sends is dropped without rules. What is there of rules is
 * read and not remembered: whoever wrote it down may have died before he did.
 */
export async function detachVm({ tap }: VmNetwork, vmId: string): Promise<void> {
  await takeAway(tap, vmId);
}

/**
 * Takes away taps and rules of VMs that are gone.
 * @param judge calls `takeAway` where this VM of the state directory does not need its tap any more, while
 *   nobody can start it
 * @returns names of the taps
 */
export async function sweepTaps(
  state: string,
  judge: (vmId: string, takeAway: () => Promise<boolean>) => Promise<boolean>,
  o: { signal?: AbortSignal | undefined } = {},
): Promise<string[]> {
  const gone: string[] = [];
  for (const { tap, owner } of await existingTaps(o)) {
    if (owner !== undefined && owner.state !== state) continue;
    const isGone =
      owner === undefined
        ? await takeAway(tap, undefined, o) // its maker, who holds the lock until it is somebody's, died
        : await judge(owner.vmId, () => takeAway(tap, owner.vmId, o));
    if (isGone) gone.push(tap);
  }
  await sweepMaking();
  await sweepRules();
  return gone;
}

/** Notes of taps that were never made, or are whole by now: their makers died. */
async function sweepMaking(): Promise<void> {
  if ((await tapsInMaking()).length === 0) return;
  await withHostNetwork(undefined, async () => {
    for (const tap of await tapsInMaking())
      if (!(await lookAtTap(tap)).isUnfinished) await forgetMaking(tap);
  });
}

/** Takes away taps of one VM of which nothing else is known. */
export async function removeTapsOf(owner: TapOwner): Promise<void> {
  for (const existing of await existingTaps()) {
    const { tap } = existing;
    if (existing.owner?.vmId === owner.vmId && existing.owner.state === owner.state)
      await takeAway(tap, owner.vmId);
  }
}

/**
 * A tap with its rules, or what rules are left of one that is gone.
 * @param vmId whose it is; undefined: nobody's
 * @returns whether it was there, and this VM's
 */
function takeAway(
  tap: string,
  vmId: string | undefined,
  o: { signal?: AbortSignal | undefined } = {},
): Promise<boolean> {
  return withHostNetwork(o.signal, async () => {
    const isThere = (await interfaces()).includes(tap);
    const { owner, isUnfinished } = await lookAtTap(tap);
    const isMeant = vmId === undefined ? isUnfinished : owner?.vmId === vmId;
    if (isThere && !isMeant) return false; // somebody else has it by now
    if (vmId !== undefined) step('network.detach', 'rules', vmId);
    try {
      if (isBridged(tap)) await new NftClient().apply(removeBridgeGuard(tap));
      else await removeLeft(tap);
    } finally {
      if (vmId !== undefined) step('network.detach', 'tap', vmId);
      await removeTap(tap, o); // whatever is wrong with the rules: gc takes those without a tap
    }
    return isThere;
  });
}

/**
 * Gives rules again to VMs whose rules somebody has flushed; until then nothing of theirs gets anywhere.
 * @param networkOf what a VM's rules are now
 */
export async function mendRules(
  vmIds: readonly string[],
  networkOf: (vmId: string) => Promise<VmNetwork | undefined>,
  o: { signal?: AbortSignal | undefined } = {},
): Promise<void> {
  if (vmIds.length === 0) return;
  const nft = new NftClient();
  const ruled = new Set((await nft.hasBase(o)) ? await nft.taps(o) : []);
  for (const vmId of vmIds) {
    const known = await networkOf(vmId);
    if (known === undefined || ruled.has(known.tap)) continue;
    await withHostNetwork(o.signal, async () => {
      const network = await networkOf(vmId);
      if (network === undefined || (await lookAtTap(network.tap)).owner?.vmId !== vmId) return;
      await rebuildRules(network, o);
    });
  }
}

/** Puts a VM's rules in the place of whatever there is of its tap, at one instant. Under the host's lock. */
export async function rebuildRules(
  network: VmNetwork,
  o: { signal?: AbortSignal | undefined } = {},
): Promise<void> {
  const nft = new NftClient();
  if (await nft.ensureBase(o)) {
    const { pool, ula } = await hostPools();
    await raiseFlushGuard(pool, o);
    if (ula !== undefined) await raiseFlushGuard(ula, o);
  }
  const left = (await nft.remains()).filter(({ tap }) => tap === network.tap);
  await nft.applyTimed([...left.flatMap(removeVm), ...(await rulesOf(network, o))], o);
}

/** Rules of taps that are not there: whose ever they were, they let nothing through any more. */
async function sweepRules(): Promise<void> {
  const nft = new NftClient();
  const there = new Set(await interfaces());
  const [taps, guarded] = await Promise.all([nft.taps(), nft.guardedTaps()]).catch(
    (error: unknown): [string[], string[]] => {
      if (error instanceof HostError) return [[], []]; // no nft, or no right to look: none of it is ours then
      throw error;
    },
  );
  if ([...taps, ...guarded].every((tap) => there.has(tap))) return;
  await withHostNetwork(undefined, async () => {
    const now = new Set(await interfaces());
    for (const tap of guarded) if (!now.has(tap)) await nft.apply(removeBridgeGuard(tap));
    for (const remains of await nft.remains()) {
      if (!now.has(remains.tap)) await nft.apply(removeVm(remains)).catch(ignoreGone);
    }
  });
}

/** The fast way, which fails where anything is there of an earlier VM, or the tables are not; then the slow one. */
export async function addRules(network: VmNetwork, signal: AbortSignal | undefined): Promise<void> {
  const add = async () => {
    try {
      await new NftClient().apply(await rulesOf(network, { signal }), { signal });
    } catch (error) {
      if (!(error instanceof NetworkRulesError)) throw error;
      await rebuildRules(network, { signal });
    }
  };
  await (network.v6 === undefined ? add() : withHostNetwork(signal, add));
}

/** One with IPv6 has its rules know the host's networks from the first packet on; under the host's lock, as those who follow them. */
async function rulesOf(
  network: VmNetwork,
  o: { signal?: AbortSignal | undefined },
): Promise<NftTransaction> {
  if (network.v6 === undefined) return addVm(network);
  return [...setHostNetworks(await hostNetworks(o)), ...addVm(network)];
}

/** Takes away whatever rules there are of a tap. */
export async function removeLeft(tap: string): Promise<void> {
  const nft = new NftClient();
  for (let tries = 1; ; tries++) {
    const left = (await nft.remains()).filter((remains) => remains.tap === tap);
    if (left.length === 0) return;
    try {
      return await nft.apply(left.flatMap(removeVm));
    } catch (error) {
      // An address has timed out since we looked.
      const isGone = error instanceof NetworkRulesError && error.reason === 'missing';
      if (!isGone || tries === MAX_TRIES) throw error;
    }
  }
}

function networkOf(
  { tap, guestAddress, gatewayAddress, v6 }: Endpoint,
  generation: number,
  { mac, policy }: AttachOptions,
): VmNetwork {
  const network = { tap, mac, guestAddress, gatewayAddress, generation, policy };
  return v6 === undefined ? network : { ...network, v6 };
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
