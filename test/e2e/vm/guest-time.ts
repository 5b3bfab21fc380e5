/** Whether a guest's clock is right. */
import type { Vm } from '../../../src/vm/vm.ts';

/**
 * How far a guest's clock is off, in ms, beyond what the way there and back explains: the guest read it
 * at some time between our call and its answer, and either takes seconds on a busy machine.
 */
export async function clockOffMs(vm: Vm): Promise<number> {
  const before = Date.now();
  const { stdout } = await vm.commands.run('date +%s%3N', { timeoutMs: 0 });
  const guest = Number(stdout);
  return Math.max(before - guest, guest - Date.now(), 0);
}
