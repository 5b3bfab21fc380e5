/** Clones made and ended in every way there is, several at once: nothing of them may be left. */
import { randomInt } from 'node:crypto';
import type { StatePaths } from '../../src/vm/api.ts';
import { Vm } from '../../src/vm/index.ts';
import { manyTimes, type SoakOptions } from './at-once.ts';

/** A clone that is called off is so within this long, ms: at any step of its making. */
const CALLED_OFF_MS = 800;

/** How a clone ends. */
const ENDS = ['closed', 'killed', 'dead', 'removed', 'called off'] as const;

/** What a run of cycles has shown. */
export interface CycleReport {
  readonly cycles: number;
  /** How many ended in each way. */
  readonly ends: Readonly<Record<(typeof ENDS)[number], number>>;
  /** Clones that were called off before they were there. */
  readonly unborn: number;
  /** Nothing, where all is well. */
  readonly faults: readonly string[];
}

/** @throws whatever `Vm.fromTemplate` and `vm.commands.run` throw */
export async function soakCycles(
  template: string,
  o: SoakOptions & { paths: StatePaths },
): Promise<CycleReport> {
  const { paths, signal } = o;
  const ends = { closed: 0, killed: 0, dead: 0, removed: 0, 'called off': 0 };
  const faults: string[] = [];
  let unborn = 0;
  const cycles = await manyTimes(o, async (turn) => {
    const end = ENDS[turn % ENDS.length] ?? 'closed';
    ends[end] += 1;
    if (end === 'called off') {
      if (await callOff(template, paths, signal)) unborn += 1;
      return;
    }
    await using vm = await Vm.fromTemplate(template, {
      paths,
      signal,
      persistent: end === 'removed',
    });
    if (end === 'killed') await vm.kill();
    if (end === 'removed') await vm.remove({ force: true });
    if (end === 'dead' && !(await dies(vm))) faults.push(`clone ${turn}: its death went unnoticed`);
  });
  return { cycles, ends, unborn, faults };
}

/** Kills QEMU under a command that waits. @returns whether that was told so */
async function dies(vm: Vm): Promise<boolean> {
  const { pid } = await vm.info();
  const waiting = vm.commands.run(['sleep', '999'], { timeoutMs: 0 }).then(
    () => undefined,
    (error: { code?: string }) => error.code,
  );
  if (pid !== undefined) process.kill(pid, 'SIGKILL');
  return (await waiting) === 'ERR_VM_DIED';
}

/** @returns whether there was no clone yet */
async function callOff(
  template: string,
  paths: StatePaths,
  given: AbortSignal | undefined,
): Promise<boolean> {
  const off = AbortSignal.timeout(randomInt(CALLED_OFF_MS));
  const signal = given === undefined ? off : AbortSignal.any([off, given]);
  try {
    await using _vm = await Vm.fromTemplate(template, { paths, signal });
    return false;
  } catch (error) {
    if (error !== off.reason) throw error;
    return true;
  }
}
