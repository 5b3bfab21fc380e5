/** A VM's disk, as it is at one instant, for as long as it is read. */
import { eitherSignal } from '../abort.ts';
import type { WaitOptions } from '../api.ts';
import { downOrAlive } from '../down-or-alive.ts';
import { goOn } from '../go-on.ts';
import type { LiveVm } from '../live-vm.ts';
import type { VmInside } from '../vm-inside.ts';

/** What is to be read. */
export interface HoldOptions extends WaitOptions {
  /** Only snapshots, which nobody writes to: the VM need not stand still. */
  readonly onlySnapshots?: boolean | undefined;
}

/**
 * Does something while nobody starts the VM, and nothing writes to its disk. One that runs has what it has
 * written flushed first, and stands still then; of one that is paused, what the guest had not written
 * to its disk yet is not there.
 * @throws StateError, GuestError, QmpError, TimeoutError; what `work` throws. The VM goes on then
 */
export async function holdDisk<T>(
  vm: VmInside,
  o: HoldOptions,
  work: () => Promise<T>,
): Promise<T> {
  return downOrAlive(vm, o, {
    down: () => work(),
    alive: (live) =>
      vm.state === 'paused' || o.onlySnapshots === true ? work() : standingStill(vm, live, o, work),
  });
}

async function standingStill<T>(
  vm: VmInside,
  live: LiveVm,
  given: WaitOptions,
  work: () => Promise<T>,
): Promise<T> {
  const { fault } = live.watch; // a full disk under a guest that flushes, or QEMU's death
  const o = { ...given, signal: eitherSignal(fault, given.signal) };
  const session = await live.link.open(o);
  await session.sync(o);
  return live.qmp.use(async (client) => {
    // Who finds it standing still after this process has died lets it go on, as after a fork.
    await vm.note('running', { forking: true });
    let result: T;
    try {
      await client.execute('stop', {}, o); // flushes the disk, too: what QEMU has in memory of its tables
      result = await work();
    } catch (error) {
      await goOn(vm, { live, client, session }, {}).catch(() => undefined); // else who uses it next
      throw error;
    }
    await goOn(vm, { live, client, session }, {});
    return result;
  }, o);
}
