/** A VM's network: what its record says, and the tap that it has while it runs. */
import { dirname } from 'node:path';
import type { NetworkSpec } from '../../guest-agent/protocol.ts';
import { StateDirError } from '../errors.ts';
import {
  awaitNames,
  bridgedTapOf,
  cutConnections,
  joinBridge,
  joinNetwork,
  type LanOptions,
  leaveNetwork,
  parseLan,
  readEntryOf,
  type TapNow,
} from '../network/index.ts';
import {
  bridgeOf,
  hasTap,
  placeBehindHost,
  placeOnBridge,
  planNetwork,
  type NetworkPlan,
  type TapPlace,
} from '../network/mode.ts';
import { macOf } from '../network/nic.ts';
import { eitherSignal } from './abort.ts';
import type { WaitOptions } from './wait-options.ts';
import { isAlive } from './process-identity.ts';
import { readRecord, type VmConfig } from './record.ts';
import type { VmPaths } from './vm-paths.ts';

/** Default of {@link NamesWait}: the service may have to be started. */
const NAMES_MS = 60_000;

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
  place?: TapPlace,
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

/** What a VM that is about to start has of its network. */
export interface StartPlace {
  /** Its tap, which is there. */
  readonly at: TapPlace;
  /** Its rules are there too, and the tap is up. The tap is there where it rejects, too: see {@link givePlaceBack}. */
  readonly whole: Promise<void>;
}

/**
 * Gives a VM that is about to start its tap, where it is to have one; the rest comes beside its start.
 * @throws what `joinNetwork` and `joinBridge` throw; StateDirError its record has lost its address on a bridge
 */
export async function takePlace(
  { id, files, config }: VmOnNetwork,
  signal: AbortSignal | undefined,
): Promise<StartPlace | undefined> {
  if (!hasTap(config.network)) return undefined;
  const vm = { vmId: id, runtimeDir: runtimeDirOf(files), mac: macOf(id), signal };
  const bridge = bridgeOf(config.network);
  if (bridge !== undefined) {
    const lan = lanOf({ id, files, config });
    const at = placeOnBridge(await joinBridge({ ...vm, bridge, lan }), id, lan);
    return { at, whole: Promise.resolve() };
  }
  const { network, whole } = await joinNetwork({
    ...vm,
    ...{
      egress: config.egress ?? {},
      publish: config.publish ?? [],
      ipv6: config.ipv6,
      logPath: files.networkLogPath,
    },
  });
  return { at: placeBehindHost(network), whole };
}

/** The wait for a VM's names to be answered, which goes on beside its start and ends with it. */
export class NamesWait implements Disposable {
  readonly #over = new AbortController();
  /** Resolves when they are, at once where no resolver of ours is in the VM's network. @throws NetworkSetupError, TimeoutError */
  readonly answered: Promise<void>;

  /** @param o what the start has left, of which the rules take some. Default 60 000 ms */
  constructor(
    { id, files, config }: VmOnNetwork,
    place: StartPlace | undefined,
    { signal, timeoutMs = NAMES_MS }: WaitOptions,
  ) {
    const deadline = performance.now() + timeoutMs;
    const vm = { vmId: id, runtimeDir: runtimeDirOf(files) };
    const bounds = () => ({
      signal: eitherSignal(this.#over.signal, signal),
      timeoutMs: Math.max(1, Math.ceil(deadline - performance.now())),
    });
    this.answered =
      place === undefined || config.network !== 'nat-filtered'
        ? Promise.resolve()
        : place.whole.then(() => awaitNames(vm, bounds()));
    this.answered.catch(() => undefined); // who starts the VM hears of it, where it gets that far
  }

  [Symbol.dispose](): void {
    this.#over.abort(new Error('the start is over'));
  }
}

/** A guest that goes back to an earlier state has none of the connections that it has now. */
export async function cutConnectionsOf(
  { id, files, config }: VmOnNetwork,
  o: WaitOptions,
): Promise<void> {
  if (config.network !== 'nat-filtered') return;
  await cutConnections({ runtimeDir: runtimeDirOf(files), vmId: id }, o);
}

/**
 * Gives back the tap of a VM that has ended, or whose start failed: QEMU is dead by then. No error where it has none.
 * @param vm without its config where that is not known
 * @param place that it was about to have
 */
export async function givePlaceBack(
  vm: Omit<VmOnNetwork, 'config'> & { config: VmConfig | undefined },
  place?: StartPlace,
): Promise<void> {
  await place?.whole.catch(() => undefined);
  if (vm.config !== undefined && !hasTap(vm.config.network)) return;
  await leaveNetwork(runtimeDirOf(vm.files), vm.id);
}

/** The tap that a VM has now; undefined where it has none. */
async function placeOf({ id, files, config }: VmOnNetwork): Promise<TapPlace | undefined> {
  if (!hasTap(config.network)) return undefined;
  const runtimeDir = runtimeDirOf(files);
  if (bridgeOf(config.network) === undefined) {
    const entry = await readEntryOf(runtimeDir, id);
    return entry && placeBehindHost(entry.network);
  }
  const tap = await bridgedTapOf(runtimeDir, id);
  return tap === undefined ? undefined : placeOnBridge(tap, id, lanOf({ id, files, config }));
}

/**
 * Which tap it is, this instant; undefined: there is no such VM any more. What is written down of a tap that is lent may be
 * of a life that nobody has seen end, and the tap another VM's: it holds while that life's QEMU does.
 * @throws StateDirError its record cannot be read
 */
export async function tapNowOf({ id, files, config }: VmOnNetwork): Promise<TapNow | undefined> {
  const record = await readRecord(files);
  if (record === undefined) return undefined;
  const runtimeDir = runtimeDirOf(files);
  if (bridgeOf(config.network) !== undefined) return { tap: await bridgedTapOf(runtimeDir, id) };
  const { network, loan } = (await readEntryOf(runtimeDir, id)) ?? {};
  if (loan === undefined) return { tap: network?.tap };
  const qemu = record.run?.qemu; // which came after the entry, and goes before it
  return qemu !== undefined && isAlive(qemu) ? { tap: network?.tap, loan: loan.id } : {};
}

/** By what the others on its LAN know a VM; undefined where it is on no bridge, or its record has lost its address. Pure. */
export function identityOf(
  id: string,
  { network, lan }: VmConfig,
): { mac: string; address: string } | undefined {
  if (bridgeOf(network) === undefined || lan === undefined) return undefined;
  return { mac: macOf(id), address: parseLan(lan).address };
}

/** Who a VM is on its bridge. Without that it has no network, and no other than it was made for. @throws StateDirError */
function lanOf({ id, files, config }: VmOnNetwork): LanOptions {
  if (config.lan !== undefined) return config.lan;
  const what = `${files.recordPath} does not say which address the VM has on ${config.network}`;
  throw new StateDirError(what, {
    path: files.recordPath,
    vmId: id,
    hint: 'Write it there again, beside "network": "lan": {"address": "192.0.2.5/24"}; or make the VM anew.',
  });
}

/** Of the state directory: a VM's own is in it. */
function runtimeDirOf({ runtimeDir }: VmPaths): string {
  return dirname(runtimeDir);
}
