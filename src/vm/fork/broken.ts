/** What a fork leaves whose process died in the midst of it: a VM in which nothing moves. */
import { eitherSignal } from '../abort.ts';
import type { WaitOptions } from '../api.ts';
import { FileLock } from '../file-lock.ts';
import type { LiveVm } from '../live-vm.ts';
import type { VmInside } from '../vm-inside.ts';

/** Lets the VM go on; its machine lock is held. */
export async function endBrokenFork(vm: VmInside, live: LiveVm, o: WaitOptions): Promise<void> {
  // Of a disk that was full, the fault is an old one: there may be space by now.
  const guard = live.watch.outOfSpace === undefined ? [live.watch.fault] : [];
  const going = { ...o, signal: AbortSignal.any([...guard, ...(o.signal ? [o.signal] : [])]) };
  await live.qmp.use((client) => client.execute('cont', {}, going), going); // no error where they run
  live.watch.renew();
  const { fault } = live.watch;
  const bounds = { ...o, signal: eitherSignal(fault, o.signal) };
  const session = await live.link.open(bounds);
  await session.thaw(Date.now(), bounds);
  await vm.note('running', { forking: undefined });
}

/** As {@link endBrokenFork} for who does not hold the lock; who does is forking, or will see to it. */
export async function endBrokenForkUnlocked(vm: VmInside, o: WaitOptions): Promise<void> {
  const lock = await FileLock.tryAcquire(vm.files.lockPath);
  if (lock === undefined) return;
  await lock.release();
  // Under the lock the record is read anew: somebody may have seen to it by now.
  await vm.exclusively(['running', 'paused'], o, () => Promise.resolve());
}
