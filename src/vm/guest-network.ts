/** The network of a guest that has booted. */
import { GuestError, StateError } from '../errors.ts';
import { hasTap } from '../network/mode.ts';
import { eitherSignal } from './abort.ts';
import type { LiveVm } from './live-vm.ts';
import { guestNetworkOf } from './network-of.ts';
import type { VmConfig } from './record.ts';
import type { VmPaths } from './vm-paths.ts';

/** A guest that has just booted, on a busy host. */
const SET_MS = 30_000;

/**
 * Has a guest that has booted take up its network.
 * @throws StateError the guest cannot; the signal's reason
 */
export async function bringUpNetwork(
  live: LiveVm,
  config: VmConfig,
  { id, files, signal: given }: { id: string; files: VmPaths; signal?: AbortSignal | undefined },
): Promise<void> {
  const network = await guestNetworkOf({ id, files, config });
  if (network === undefined) {
    if (hasTap(config.network)) throw lostTap(id, config.network);
    return;
  }
  const signal = eitherSignal(live.watch.fault, given);
  const session = await live.link.open({ timeoutMs: SET_MS, signal });
  try {
    await session.setNetwork(network, { timeoutMs: SET_MS, signal });
  } catch (error) {
    if (!(error instanceof GuestError)) throw error;
    throw new StateError(`VM ${id} has no network: ${error.message}`, {
      ...{ vmId: id, cause: error, actual: 'without a network', required: [config.network ?? ''] },
      hint: 'The image must have the kernel that it was built with; `--network isolated` does without.',
    });
  }
}

/** Somebody took it away since the start began. */
function lostTap(id: string, network = ''): StateError {
  return new StateError(`VM ${id} has lost its tap while it started`, {
    ...{ vmId: id, actual: 'without a tap', required: [network] },
    hint: 'Start it again.',
  });
}
