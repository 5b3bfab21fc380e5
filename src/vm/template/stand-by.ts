/** A clone that is kept ready: past all that the first command costs, and standing still. */
import type { VmCloneOptions, VmInstance } from '../api.ts';

/** Until the first command has ended: it is the one that translates, loads and forks for the first time. */
const WARM_MS = 30_000;

/**
 * Where `paused` is asked for: runs `true` in a new VM, so that its next command finds all that it needs in the guest's memory (and under
 * TCG translated), and pauses it. Where that fails, nothing is left of the VM.
 */
export async function standBy<T extends VmInstance>(
  vm: T,
  { paused, signal }: VmCloneOptions,
): Promise<T> {
  if (paused !== true) return vm;
  try {
    await vm.commands.run(['true'], { signal, timeoutMs: WARM_MS });
    await vm.pause({ signal });
    return vm;
  } catch (error) {
    await vm.remove({ force: true }).catch(() => undefined);
    await vm.close();
    throw error;
  }
}
