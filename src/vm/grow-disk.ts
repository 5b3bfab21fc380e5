/** A disk that is larger than its image holds a file system of the image's size, until it is grown. */
import { GuestError, StateError } from '../errors.ts';
import { diskBytesOf } from '../storage/index.ts';
import { eitherSignal } from './abort.ts';
import type { LiveVm } from './live-vm.ts';
import type { VmConfig } from './record.ts';

/** Terabytes on a slow disk. */
const GROW_MS = 60_000;

/**
 * Has the guest grow its root file system, where its disk is larger than the image; else costs a look at
 * the image. Done at each boot, as one that broke off is made up for at the next.
 * @throws StateError the guest cannot; the signal's reason
 */
export async function growDisk(
  live: LiveVm,
  { diskBytes, rootfsPath }: VmConfig,
  { id, signal: given }: { id: string; signal?: AbortSignal | undefined },
): Promise<void> {
  if (diskBytes <= (await diskBytesOf(rootfsPath))) return;
  const signal = eitherSignal(live.watch.fault, given);
  const session = await live.link.open({ timeoutMs: GROW_MS, signal });
  try {
    await session.growRoot({ timeoutMs: GROW_MS, signal });
  } catch (error) {
    if (!(error instanceof GuestError)) throw error;
    const message = `the file system of VM ${id} cannot be grown to its disk: ${error.message}`;
    throw new StateError(message, {
      ...{ vmId: id, cause: error, actual: 'of the image’s size', required: ['grown'] },
      hint: 'Leave the disk’s size out (--disk), or build the image with a larger sizeMib.',
    });
  }
}
