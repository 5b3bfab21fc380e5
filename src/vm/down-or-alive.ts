/** What is done in one way to a VM that is down, and in another to one that has a QEMU. */
import type { WaitOptions } from './api.ts';
import { goneVm } from './find-vm.ts';
import type { LiveVm } from './live-vm.ts';
import { lockMachine } from './machine-lock.ts';
import { readRecord, type VmRecord } from './record.ts';
import { isDown, observeState } from './vm-info.ts';
import type { VmInside } from './vm-inside.ts';

/** Both ways. */
export interface DownOrAlive<T> {
  /** Throws where it is neither's turn, before anything is touched. */
  readonly check?: (record: VmRecord) => void;
  /** Nobody starts the VM meanwhile. */
  readonly down: (record: VmRecord) => Promise<T>;
  /** As in {@link VmInside.exclusively}. */
  readonly alive: (live: LiveVm) => Promise<T>;
}

/** @throws NotFoundError it was removed; StateError it neither runs nor is down, nor is paused; what `way` throws */
export async function downOrAlive<T>(
  vm: VmInside,
  o: WaitOptions,
  way: DownOrAlive<T>,
): Promise<T> {
  {
    await using _lock = await lockMachine(vm.id, vm.files.lockPath, o);
    const record = await readRecord(vm.files);
    if (record === undefined) throw goneVm(vm.id);
    way.check?.(record);
    if (isDown(observeState(record).state)) return await way.down(record);
  }
  return vm.exclusively(['running', 'paused'], o, way.alive);
}
