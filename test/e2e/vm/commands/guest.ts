/** What the tests of `vm.commands` share: one VM, and how they look into it. */
import type {
  CommandLine,
  CommandOptions,
  CommandResult,
} from '../../../../src/vm/command-types.ts';
import type { Vm } from '../../../../src/vm/vm.ts';
import { SCALE } from '../../../scale.ts';

/** The VM of the file, once it is up. */
export type VmOfTest = () => Vm;

/** A command that should take some ms; generous, as others use this machine too. */
export const SOON_MS = 15_000 * SCALE;

/** Runs a command to its end. */
export function run(
  vm: VmOfTest,
  command: CommandLine,
  o: Omit<CommandOptions, 'background'> = {},
): Promise<CommandResult> {
  return vm().commands.run(command, o);
}

/** Processes in the guest with this name. */
export async function countOf(vm: VmOfTest, name: string): Promise<number> {
  const script = `cat /proc/[0-9]*/comm 2>/dev/null | grep -cx '${name}'; true`;
  return Number((await run(vm, script, { user: 'root' })).stdout);
}
