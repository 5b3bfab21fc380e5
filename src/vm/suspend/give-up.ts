/** Throwing a suspended VM's memory away: what is left is its disk, as after a loss of power. */
import { killStrays } from '../gc.ts';
import type { VmInside } from '../vm-inside.ts';
import { sweepSaved } from './saved.ts';

/** Makes a suspended VM a stopped one; under the machine lock. */
export async function giveUpSaved(vm: VmInside): Promise<void> {
  await killStrays(vm.id); // else it would be the VM's again
  await vm.write({ state: 'stopped', detail: 'its memory was given up' });
  await sweepSaved(vm.files.dir, undefined);
}

/**
 * Removes what a stopped VM must not have: a QEMU whose starter died before it could write the pid down,
 * and memory that it once went on from. Under the machine lock.
 */
export async function removeLeftovers(vm: VmInside): Promise<void> {
  await killStrays(vm.id);
  await sweepSaved(vm.files.dir, undefined);
}
