/** What a VM that has ended gives back, and that another life of it will take anew. */
import { givePlaceBack } from './network-of.ts';
import { sweepSaved } from './suspend/saved.ts';
import type { VmInside } from './vm-inside.ts';

/** Saved memory that nothing goes on from any more, and the tap. What resists is for gc. */
export async function afterEnd(vm: VmInside): Promise<void> {
  await sweepSaved(vm.files.dir, undefined);
  await givePlaceBack(vm).catch(() => undefined);
}
