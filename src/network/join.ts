/** A VM on the network, from its start to its end: tap, rules, entry and names together. */
import { changePolicy, NftClient, type VmCounters } from '../../nft/index.ts';
import { NetworkSetupError } from '../errors.ts';
import { step } from '../steps.ts';
import {
  detachVm,
  mendRules,
  rebuildRules,
  removeTapsOf,
  stateKey,
  sweepTaps,
  takeTap,
  type Place,
} from './attach.ts';
import {
  networkDir,
  readEntries,
  readEntry,
  removeEntry,
  removeHalfEntries,
  writeEntry,
  type NetworkEntry,
} from './entry.ts';
import { nextGeneration, withHostNetwork } from './host-dir.ts';
import { borrowTap, giveBack, refuseChange, renewLoan } from './lent/borrow.ts';
import { checkReach, makePolicy, type EgressOptions, type VmPolicy } from './policy.ts';
import { parseAllPublished } from './publish.ts';
import { mayMakeTaps } from './rights.ts';
import { existingTaps } from './tap.ts';
import { nudgeService, syncService, tellService } from './service/start.ts';

/** What {@link joinNetwork} is given. */
export interface JoinOptions {
  readonly runtimeDir: string;
  readonly vmId: string;
  readonly mac: string;
  readonly egress: EgressOptions;
  /** As `parsePublished` reads them. */
  readonly publish: readonly string[];
  /** Whether it has IPv6 addresses, too. Default false. */
  readonly ipv6?: boolean | undefined;
  /** Where what the VM does is recorded. */
  readonly logPath: string;
  readonly signal?: AbortSignal | undefined;
}

/**
 * Gives a VM that is about to start its tap; it has its rules, and is written down, when `whole` resolves. What it
 * had before is given back first, so that no connection of an earlier life goes on.
 * @throws what `takeTap` and `makePolicy` throw; nothing is left then. Where `whole` rejects the tap is left, and
 *   {@link leaveNetwork} takes it away
 */
export async function joinNetwork(o: JoinOptions): Promise<Place> {
  const { runtimeDir, vmId, egress, logPath } = o;
  const policy = makePolicy(egress, undefined, { hasIpv6: o.ipv6 });
  const published = parseAllPublished(o.publish);
  await leaveNetwork(runtimeDir, vmId);
  if (!(await mayMakeTaps())) return borrow(o, policy);
  const { network, whole: ruled } = await takeTap({
    ...{ vmId, mac: o.mac, policy: policy.rules, ipv6: o.ipv6, signal: o.signal },
    state: stateKey(runtimeDir),
  });
  const entry = { vmId, network, policy, egress, published, logPath };
  const whole = ruled.then(() => writeEntry(networkDir(runtimeDir), entry));
  whole.catch(() => undefined); // who waits for it hears of it
  return { network, whole };
}

/** The same for a process that may not make a tap. All of it is there when it resolves: nobody has opened the tap before. */
async function borrow(o: JoinOptions, policy: VmPolicy): Promise<Place> {
  const { runtimeDir, vmId, egress, logPath, signal } = o;
  const publishes = o.publish.length > 0;
  step('network.attach', 'tap', vmId);
  const { loan, network } = await borrowTap({ vmId, policy, publishes, ipv6: o.ipv6, signal });
  const entry = { vmId, network, policy, egress, published: [], logPath, loan };
  await writeEntry(networkDir(runtimeDir), entry).catch(async (error: unknown) => {
    await giveBack(loan, vmId, logPath);
    throw error;
  });
  return { network, whole: Promise.resolve() };
}

/**
 * Resolves when the VM's names are answered.
 * @throws NetworkSetupError, TimeoutError, the signal's reason
 */
export async function awaitNames(
  { runtimeDir, vmId }: Pick<JoinOptions, 'runtimeDir' | 'vmId'>,
  o: { signal?: AbortSignal | undefined; timeoutMs?: number | undefined } = {},
): Promise<void> {
  const dir = networkDir(runtimeDir);
  const isLent = (await readEntry(dir, vmId))?.loan !== undefined; // then they are, by whoever lends it
  if (!isLent) await syncService(dir, { vmId, ...o });
}

/** Gives back all that a VM has of the network; no error where it has nothing. */
export async function leaveNetwork(runtimeDir: string, vmId: string): Promise<void> {
  const dir = networkDir(runtimeDir);
  const entry = await readEntry(dir, vmId);
  if (entry === undefined) {
    await removeTapsOf({ state: stateKey(runtimeDir), vmId }); // of a process that died before it wrote
    return;
  }
  if (entry.loan === undefined) await detachVm(entry.network, vmId);
  else await giveBack(entry.loan, vmId, entry.logPath);
  await removeEntry(dir, vmId);
  nudgeService(dir);
}

/**
 * The guest goes back to an earlier state: none of its connections is its own any more, those by way of its published
 * ports neither, which the service holds.
 * @throws NetworkSetupError it has no tap, or its lender does not answer; NetworkRulesError; TimeoutError the service
 *   does not cut them; the signal's reason
 */
export async function cutConnections(
  { runtimeDir, vmId }: Pick<JoinOptions, 'runtimeDir' | 'vmId'>,
  o: { signal?: AbortSignal | undefined; timeoutMs?: number | undefined } = {},
): Promise<void> {
  const entry = await readEntry(networkDir(runtimeDir), vmId);
  if (entry?.loan !== undefined) {
    const network = await renewLoan(entry.loan, { vmId, ...o });
    return writeEntry(networkDir(runtimeDir), { ...entry, network });
  }
  const { published } = await change(runtimeDir, vmId, (before) => before, { renew: true });
  if (published.length > 0) await tellService(networkDir(runtimeDir), { vmId, ...o });
}

/**
 * Gives a VM another policy at one instant. Connections that it still allows live on, all others are cut. Its
 * names follow when the service has been told ({@link awaitNames}).
 * @throws NetworkSetupError the VM has no tap; ConfigError; NetworkRulesError: the old policy holds then
 */
export async function changeEgress(
  runtimeDir: string,
  vmId: string,
  make: (before: EgressOptions) => EgressOptions,
): Promise<NetworkEntry> {
  return change(runtimeDir, vmId, (before) => {
    if (before.loan !== undefined) refuseChange(vmId);
    const egress = make(before.egress);
    const hasIpv6 = before.network.v6 !== undefined;
    const policy = checkReach(egress, { hasIpv6, before: before.policy });
    return { ...before, egress, policy, network: { ...before.network, policy: policy.rules } };
  });
}

/**
 * What is to be is written down before it is: where somebody dies in between, or the disk is full afterwards,
 * nobody knows which of the two the kernel has, and the next change begins with rules that are made anew.
 */
async function change(
  runtimeDir: string,
  vmId: string,
  make: (before: NetworkEntry) => NetworkEntry,
  o: { renew?: boolean } = {},
): Promise<NetworkEntry> {
  const dir = networkDir(runtimeDir);
  const before = await requireEntry(runtimeDir, vmId);
  const wanted = { ...make(before), isChanging: undefined };
  const isUnsure = before.isChanging === true;
  const renewed = async (entry: NetworkEntry): Promise<NetworkEntry> => {
    const generation = await withHostNetwork(undefined, () => nextGeneration(entry.network.tap));
    return { ...entry, network: { ...entry.network, generation } };
  };
  const after = o.renew === true || isUnsure ? await renewed(wanted) : wanted;
  const { lastId } = after.policy;
  step('network.change', 'note', vmId);
  await writeEntry(dir, { ...before, policy: { ...before.policy, lastId }, isChanging: true });
  step('network.change', 'rules', vmId);
  if (isUnsure) await withHostNetwork(undefined, () => rebuildRules(after.network));
  else await new NftClient().apply(changePolicy(before.network, after.network));
  step('network.change', 'record', vmId);
  await writeEntry(dir, after);
  nudgeService(dir);
  return after;
}

/** What is known of a VM's network. @throws NetworkSetupError it has no tap */
export async function requireEntry(runtimeDir: string, vmId: string): Promise<NetworkEntry> {
  const entry = await readEntry(networkDir(runtimeDir), vmId);
  if (entry !== undefined) return entry;
  throw new NetworkSetupError(`VM ${vmId} has no tap`, {
    hint: 'Only VMs with --network nat-filtered have one, from their start on.',
    vmId,
  });
}

/** Its counters since it started; undefined where they are not ours to read: its tap is borrowed. */
export async function countersOf({ network, loan }: NetworkEntry): Promise<VmCounters | undefined> {
  if (loan !== undefined) return undefined;
  return (await new NftClient().counters()).get(network.tap);
}

/**
 * Takes away what is left of VMs that are gone, and sees to it that those that are there have rules and names.
 * @param judge as of `sweepTaps`
 * @returns names of the taps that were taken away
 */
export async function sweepNetwork(
  runtimeDir: string,
  judge: (vmId: string, takeAway: () => Promise<boolean>) => Promise<boolean>,
  o: { signal?: AbortSignal | undefined } = {},
): Promise<string[]> {
  const dir = networkDir(runtimeDir);
  const removeOwn = (vmId: string, takeAway: () => Promise<boolean>) =>
    judge(vmId, async () => {
      const isGone = await takeAway();
      await removeEntry(dir, vmId);
      return isGone;
    });
  const gone = await sweepTaps(stateKey(runtimeDir), removeOwn, o);
  await removeHalfEntries(dir);
  const entries = await readEntries(dir);
  if (entries.length === 0) return gone;
  const there = new Set((await existingTaps(o)).map(({ tap }) => tap));
  for (const { vmId, network, loan } of entries) {
    // After a boot of the host there are entries no more, but a tap may have been taken away by somebody.
    const leave = () =>
      loan === undefined ? removeEntry(dir, vmId) : leaveNetwork(runtimeDir, vmId);
    if (!there.has(network.tap)) await judge(vmId, () => leave().then(() => true));
  }
  const own = (await readEntries(dir)).filter(({ loan }) => loan === undefined);
  const left = own.map(({ vmId }) => vmId);
  const networkNow = async (vmId: string) => (await readEntry(dir, vmId))?.network;
  await mendRules(left, networkNow, o);
  const [first] = left;
  if (first === undefined) nudgeService(dir);
  else await syncService(dir, { vmId: first, ...o }).catch(() => undefined); // its log says why
  return gone;
}
