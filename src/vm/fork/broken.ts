/** What a fork leaves whose process died in the midst of it: a VM in which nothing moves. */
import type { WaitOptions } from '../api.ts';
import { FileLock } from '../file-lock.ts';
import { goOn } from '../go-on.ts';
import type { LiveVm } from '../live-vm.ts';
import type { VmInside } from '../vm-inside.ts';

/** Lets the VM go on; its machine lock is held. */
export async function endBrokenFork(vm: VmInside, live: LiveVm, o: WaitOptions): Promise<void> {
  const session = (bounds: WaitOptions) => live.link.open(bounds);
  await live.qmp.use((client) => goOn(vm, { live, client, session }, o), o);
}

/** As {@link endBrokenFork} for who does not hold the lock; who does is forking, or will see to it. */
export async function endBrokenForkUnlocked(vm: VmInside, o: WaitOptions): Promise<void> {
  const lock = await FileLock.tryAcquire(vm.files.lockPath);
  if (lock === undefined) return;
  await lock.release();
  // Under the lock the record is read anew: somebody may have seen to it by now.
  await vm.exclusively(['running', 'paused'], o, () => Promise.resolve());
}
