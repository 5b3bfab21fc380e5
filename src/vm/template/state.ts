/**
 * The state of a machine's devices, without its memory and disk: what a clone goes on from.
 *
 * `xen-save-devices-state` is the one command of QEMU that writes it alone, to a file, in 1–2 ms; nothing
 * in it is Xen's. The way back is an ordinary incoming migration.
 */
import { dirname } from 'node:path';
import type { QmpClient } from '../../../qmp/index.ts';
import type { WaitOptions } from '../api.ts';
import { INHERITED_FD } from '../launcher.ts';
import { explainSaveFailure } from '../snapshot-space.ts';

/** Where a frozen machine is, besides its disk. */
export interface FrozenFiles {
  /** Guest memory, from address 0 of the backend on; holes are zeros. */
  readonly memoryPath: string;
  /** What {@link saveState} wrote. */
  readonly statePath: string;
}

/** From `migrate-incoming` to running vCPUs; some 10 ms where the host is not swapping. */
const LOAD_MS = 30_000;

/**
 * Writes the devices' state; the vCPUs must stand still, and do so afterwards.
 * @throws HostError ERR_HOST_DISK_FULL, QmpError
 */
export async function saveState(client: QmpClient, path: string, o: WaitOptions): Promise<void> {
  // `live` would hand the disk over to somebody else.
  const saving = client.execute('xen-save-devices-state', { filename: path, live: false }, o);
  await saving.catch(async (error: unknown) => {
    throw await explainSaveFailure('template', dirname(path), error);
  });
}

/**
 * Loads the state that QEMU inherited as a descriptor, and waits until the vCPUs run. A state that does
 * not fit ends QEMU.
 */
export async function loadState(client: QmpClient, signal: AbortSignal): Promise<void> {
  const running = client.waitForEvent('RESUME', { signal, timeoutMs: LOAD_MS });
  running.catch(() => undefined); // where the command fails, that is what counts
  await client.execute('migrate-incoming', { uri: `fd:${INHERITED_FD}` }, { signal });
  await running;
}
