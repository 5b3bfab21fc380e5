/** A VM's network: what its record says, and the tap that it has while it runs. */
import { dirname } from 'node:path';
import type { NetworkSpec } from '../../guest-agent/protocol.ts';
import type { VmNetwork } from '../../nft/index.ts';
import {
  awaitNames,
  cutConnections,
  DEFAULT_POOL,
  joinNetwork,
  leaveNetwork,
  readEntryOf,
} from '../network/index.ts';
import { planNetwork, type NetworkPlan } from '../network/mode.ts';
import { macOf } from '../network/nic.ts';
import type { VmConfig } from './record.ts';
import type { VmPaths } from './vm-paths.ts';

/** A VM whose network is meant. */
interface VmOnNetwork {
  readonly id: string;
  readonly files: VmPaths;
  readonly config: VmConfig;
}

/**
 * Undefined: it was made when VMs had no network device. Pure.
 * @param place its tap, where it has one
 */
export function networkOf(
  id: string,
  { network }: VmConfig,
  place?: VmNetwork,
): NetworkPlan | undefined {
  return network === undefined ? undefined : planNetwork(network, id, place);
}

/** What the agent is told of the network; undefined where there is nothing to tell. */
export async function guestNetworkOf({
  id,
  files,
  config,
}: VmOnNetwork): Promise<NetworkSpec | undefined> {
  return networkOf(id, config, await placeOf({ id, files, config }))?.guest;
}

/**
 * Gives a VM that is about to start its tap, where it is to have one.
 * @throws what `joinNetwork` throws
 */
export async function takePlace(
  { id, files, config }: VmOnNetwork,
  signal: AbortSignal | undefined,
): Promise<VmNetwork | undefined> {
  if (config.network !== 'nat-filtered') return undefined;
  const { network } = await joinNetwork({
    ...{ vmId: id, runtimeDir: runtimeDirOf(files), mac: macOf(id), signal },
    ...{
      egress: config.egress ?? {},
      publish: config.publish ?? [],
      pool: DEFAULT_POOL,
      logPath: files.networkLogPath,
    },
  });
  return network;
}

/** Resolves when a VM that has a tap can look up names. @throws NetworkSetupError, TimeoutError */
export async function namesAnswered(
  { id, files, config }: VmOnNetwork,
  o: { signal?: AbortSignal | undefined; timeoutMs?: number | undefined },
): Promise<void> {
  if (config.network === 'nat-filtered')
    await awaitNames({ vmId: id, runtimeDir: runtimeDirOf(files) }, o);
}

/** A guest that goes back to an earlier state has none of the connections that it has now. */
export async function cutConnectionsOf({ id, files, config }: VmOnNetwork): Promise<void> {
  if (config.network === 'nat-filtered') await cutConnections(runtimeDirOf(files), id);
}

/** Gives back the tap of a VM that has ended; no error where it has none. */
export async function givePlaceBack(id: string, files: VmPaths): Promise<void> {
  await leaveNetwork(runtimeDirOf(files), id);
}

async function placeOf({ id, files, config }: VmOnNetwork): Promise<VmNetwork | undefined> {
  if (config.network !== 'nat-filtered') return undefined;
  return (await readEntryOf(runtimeDirOf(files), id))?.network;
}

/** Of the state directory: a VM's own is in it. */
function runtimeDirOf({ runtimeDir }: VmPaths): string {
  return dirname(runtimeDir);
}
