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
  type Place,
  readEntryOf,
} from '../network/index.ts';
import { planNetwork, type NetworkPlan } from '../network/mode.ts';
import { macOf } from '../network/nic.ts';
import { eitherSignal } from './abort.ts';
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
 * Gives a VM that is about to start its tap, where it is to have one; the rest comes beside its start.
 * @throws what `joinNetwork` throws
 */
export async function takePlace(
  { id, files, config }: VmOnNetwork,
  signal: AbortSignal | undefined,
): Promise<Place | undefined> {
  if (config.network !== 'nat-filtered') return undefined;
  return joinNetwork({
    ...{ vmId: id, runtimeDir: runtimeDirOf(files), mac: macOf(id), signal },
    ...{
      egress: config.egress ?? {},
      publish: config.publish ?? [],
      pool: DEFAULT_POOL,
      logPath: files.networkLogPath,
    },
  });
}

/** The wait for a VM's names to be answered, which goes on beside its start and ends with it. */
export class NamesWait implements Disposable {
  readonly #over = new AbortController();
  /** Resolves when they are, at once where the VM has no tap. @throws NetworkSetupError, TimeoutError */
  readonly answered: Promise<void>;

  constructor(
    { id, files }: Omit<VmOnNetwork, 'config'>,
    place: Place | undefined,
    signal: AbortSignal | undefined,
  ) {
    this.answered =
      place === undefined
        ? Promise.resolve()
        : place.whole.then(() =>
            awaitNames(
              { vmId: id, runtimeDir: runtimeDirOf(files) },
              { signal: eitherSignal(this.#over.signal, signal) },
            ),
          );
    this.answered.catch(() => undefined); // who starts the VM hears of it, where it gets that far
  }

  [Symbol.dispose](): void {
    this.#over.abort(new Error('the start is over'));
  }
}

/** A guest that goes back to an earlier state has none of the connections that it has now. */
export async function cutConnectionsOf({ id, files, config }: VmOnNetwork): Promise<void> {
  if (config.network === 'nat-filtered') await cutConnections(runtimeDirOf(files), id);
}

/**
 * Gives back the tap of a VM that has ended; no error where it has none.
 * @param vm without its config where that is not known
 * @param place that it was about to have
 */
export async function givePlaceBack(
  vm: Omit<VmOnNetwork, 'config'> & { config: VmConfig | undefined },
  place?: Place,
): Promise<void> {
  await place?.whole.catch(() => undefined);
  if (vm.config !== undefined && vm.config.network !== 'nat-filtered') return;
  await leaveNetwork(runtimeDirOf(vm.files), vm.id);
}

async function placeOf({ id, files, config }: VmOnNetwork): Promise<VmNetwork | undefined> {
  if (config.network !== 'nat-filtered') return undefined;
  return (await readEntryOf(runtimeDirOf(files), id))?.network;
}

/** Of the state directory: a VM's own is in it. */
function runtimeDirOf({ runtimeDir }: VmPaths): string {
  return dirname(runtimeDir);
}
