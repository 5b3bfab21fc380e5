/**
 * A VM on a bridge of the host: a tap that is one of its ports, with a guard before it goes up. Whose the tap is
 * is written on it before anything else is done, and gone with it: what is left of a process that died is found
 * by that, as of taps behind the host.
 */
import { writeFile } from 'node:fs/promises';
import { addBridgeGuard, BRIDGED_TAP_NAME, type BridgedVm, NftClient } from '../../nft/index.ts';
import { NetworkSetupError } from '../errors.ts';
import { isThere } from '../host-files.ts';
import { step } from '../steps.ts';
import { removeTapsOf, stateKey } from './attach.ts';
import { firstName } from './endpoint.ts';
import { hasFrameFilter, raiseFrameFilter } from './frame-filter.ts';
import { withHostNetwork } from './host-dir.ts';
import { ipBatch } from './ip-command.ts';
import { parseLan, type LanOptions } from './lan.ts';
import {
  existingTaps,
  ignoreMissing,
  interfaces,
  isBridged,
  lookAtTap,
  makeOrRemove,
  portCommands,
  type ExistingTap,
} from './tap.ts';

/** What {@link joinBridge} is given. */
export interface BridgeJoinOptions {
  readonly runtimeDir: string;
  readonly vmId: string;
  /** The guest's MAC address. */
  readonly mac: string;
  /** Name of the bridge. */
  readonly bridge: string;
  readonly lan: LanOptions;
  readonly signal?: AbortSignal | undefined;
}

/**
 * Gives a VM that is about to start a port of the bridge. What it had before is given back first.
 * @returns the tap's name
 * @throws NetworkSetupError there is no such bridge; HostError no permission, or a program is missing;
 *   NetworkRulesError; TimeoutError; the signal's reason. Nothing is left then
 */
export async function joinBridge(o: BridgeJoinOptions): Promise<string> {
  const { vmId, mac, bridge, signal } = o;
  const { address } = parseLan(o.lan);
  await checkBridge(bridge, vmId);
  const owner = { state: stateKey(o.runtimeDir), vmId };
  await removeTapsOf(owner);
  try {
    step('network.attach', 'tap', vmId);
    const tap = await withHostNetwork(signal, async () => {
      const name = firstName(BRIDGED_TAP_NAME, await interfaces());
      const { make } = portCommands(name, { owner, mac, bridge });
      await makeOrRemove(name, vmId, () => ipBatch(make));
      // Else the host would speak on the LAN by it until it is a port.
      await writeFile(`/proc/sys/net/ipv6/conf/${name}/disable_ipv6`, '1').catch(ignoreMissing);
      return name;
    });
    step('network.attach', 'rules', vmId);
    await new NftClient().apply(addBridgeGuard({ tap, mac, address }), { signal });
    await raiseFrameFilter({ tap, mac, address }, { signal });
    step('network.attach', 'up', vmId);
    await ipBatch(portCommands(tap, { owner, mac, bridge }).raise, { signal });
    return tap;
  } catch (error) {
    await removeTapsOf(owner).catch(() => undefined); // gc will
    throw error;
  }
}

/** The tap of a VM on a bridge; undefined where it has none. */
export async function bridgedTapOf(runtimeDir: string, vmId: string): Promise<string | undefined> {
  const state = stateKey(runtimeDir);
  const taps = await existingTaps();
  return taps.find(({ owner }) => owner?.vmId === vmId && owner.state === state)?.tap;
}

/**
 * Gives guards again to VMs whose guards somebody has flushed (`nft flush ruleset`), and what stands in for them. Of whom it
 * is not known who he is, he is shut out.
 * @param identityOf who a VM of the state directory is on its LAN
 * @throws NetworkInterfaceError, NetworkRulesError; HostError; the signal's reason. What can be mended is
 */
export async function mendBridgeGuards(
  runtimeDir: string,
  identityOf: (vmId: string) => Promise<Omit<BridgedVm, 'tap'> | undefined>,
  o: { signal?: AbortSignal | undefined } = {},
): Promise<void> {
  const state = stateKey(runtimeDir);
  // A tap goes up when it has its guard, so that who is up and has none has lost it.
  const raised = (await existingTaps(o)).filter(
    ({ tap, owner, isUp }) => isBridged(tap) && isUp && owner?.state === state,
  );
  if (raised.length === 0) return;
  const nft = new NftClient();
  const guarded = new Set(await nft.guardedTaps(o));
  const failures: unknown[] = [];
  const mend = async ({ tap, owner }: ExistingTap): Promise<void> => {
    if (owner === undefined) return;
    const isGuarded = guarded.has(tap);
    const known = await identityOf(owner.vmId);
    const isWhole =
      isGuarded && (known === undefined || (await hasFrameFilter({ tap, ...known }, o)));
    if (isWhole) return;
    await withHostNetwork(o.signal, async () => {
      if ((await lookAtTap(tap)).owner?.vmId !== owner.vmId) return; // it is gone, or another's
      const identity = await identityOf(owner.vmId);
      if (identity === undefined) return ipBatch([`link set dev ${tap} down`], o);
      if (!isGuarded) await nft.apply(addBridgeGuard({ tap, ...identity }), o);
      await raiseFrameFilter({ tap, ...identity }, o);
    });
  };
  // What is in the way of one is not to be in that of all others.
  for (const one of raised) await mend(one).catch((error: unknown) => failures.push(error));
  if (failures.length > 0) throw failures[0];
}

async function checkBridge(name: string, vmId: string): Promise<void> {
  if (await isThere(`/sys/class/net/${name}/bridge`)) return;
  const why = (await isThere(`/sys/class/net/${name}`))
    ? `${name} is no bridge`
    : `there is no interface ${name}`;
  throw new NetworkSetupError(`the VM cannot join bridge ${name}: ${why}`, {
    hint: 'See `ip link show type bridge`; make one by `ip link add NAME type bridge`.',
    vmId,
  });
}
