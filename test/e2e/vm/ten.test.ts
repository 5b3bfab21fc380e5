/** Ten VMs at once. */
import { afterAll, expect, it } from 'vitest';
import { Vm } from '../../../src/vm/vm.ts';
import { expectNothingLeft } from '../cli/host.ts';
import { useTestState } from './state.ts';
import { SCALE } from '../../scale.ts';

const VMS = 10;
const MEMORY_MIB = 320;
/** Two cores emulate ten booting guests. */
const ALL_UP_MS = 300_000 * SCALE;
const TEST_MS = ALL_UP_MS + 60_000 * SCALE;

const state = useTestState();
afterAll(() => expectNothingLeft(state.box));

it(
  'ten VMs start at once, each runs a command of its own, and none is left',
  async () => {
    const numbers = Array.from({ length: VMS }, (_, i) => i);
    const o = { memoryMib: MEMORY_MIB, timeoutMs: ALL_UP_MS };
    const vms = await Promise.all(numbers.map(() => state.create(o)));
    const infos = await Vm.list(state);
    expect(infos.map(({ state: now }) => now)).toEqual(numbers.map(() => 'running'));
    expect(new Set(infos.map(({ id }) => id)).size).toBe(VMS);
    const outputs = await Promise.all(
      vms.map((vm, i) => vm.commands.run(`echo ${i}; hostname; cat`, { stdin: `in ${i}\n` })),
    );
    expect(outputs.map(({ stdout }) => stdout)).toEqual(
      vms.map((vm, i) => `${i}\n${vm.id}\nin ${i}\n`),
    );
    await Promise.all(vms.map((vm) => vm.close()));
    await expectNothingLeft(state.box);
  },
  TEST_MS,
);
