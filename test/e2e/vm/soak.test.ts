/** What `scripts/soak` does by the hundred, for a few. */
import { afterAll, beforeAll, expect, it } from 'vitest';
import { soakClones } from '../../../scripts/soak.d/clones.ts';
import { soakCycles } from '../../../scripts/soak.d/cycles.ts';
import { leftSince, takeStock } from '../../../scripts/soak.d/leaks.ts';
import { soakPool } from '../../../scripts/soak.d/pool.ts';
import { soakResets } from '../../../scripts/soak.d/resets.ts';
import { soakRestores } from '../../../scripts/soak.d/restores.ts';
import { createTemplate, TemplateStore, Vm } from '../../../src/vm/index.ts';
import { BOOT_MS, useTestState } from './state.ts';

const CLONES = 6;
const USERS = 6;
/** Twice each way to end. */
const CYCLES = 10;
const RESETS = 4;
const RESTORES = 3;
const STREAMS = 16;
const state = useTestState();

beforeAll(async () => {
  await createTemplate('soak', { paths: state.paths, memoryMib: 512, timeoutMs: BOOT_MS });
}, 2 * BOOT_MS);
afterAll(() => new TemplateStore(state.paths).remove('soak'));

it(
  'clones come and go; no two are twins, and nothing is left',
  async () => {
    const { paths } = state;
    await soakClones('soak', { paths, count: 1 });
    const before = await takeStock(paths);
    const { faults } = await soakClones('soak', { paths, count: CLONES, atOnce: 2 });
    expect([...faults, ...(await leftSince(before, paths))]).toEqual([]);
  },
  CLONES * BOOT_MS,
);

it(
  'users of a pool come and go; none finds anything of another, and nothing is left',
  async () => {
    const { paths } = state;
    await soakPool('soak', { paths, count: 1, timeoutMs: BOOT_MS });
    const before = await takeStock(paths);
    const { faults } = await soakPool('soak', { paths, count: USERS, timeoutMs: BOOT_MS });
    expect([...faults, ...(await leftSince(before, paths))]).toEqual([]);
  },
  USERS * BOOT_MS,
);

it(
  'clones are ended in every way, several at once, and nothing is left',
  async () => {
    const { paths } = state;
    const before = await takeStock(paths);
    const { faults, ends } = await soakCycles('soak', { paths, count: CYCLES, atOnce: 2 });
    expect([...faults, ...(await leftSince(before, paths))]).toEqual([]);
    expect(Object.values(ends)).toEqual([2, 2, 2, 2, 2]);
  },
  CYCLES * BOOT_MS,
);

it(
  'a VM is reset under open streams and under heavy writes: none hangs, and its disk stays sound',
  async () => {
    const { paths } = state;
    await using vm = await Vm.fromTemplate('soak', { paths, persistent: true });
    const other = await Vm.connect(vm.id, { paths });
    const streams = await soakRestores(vm, { count: RESTORES, streams: STREAMS, other });
    await other.close();
    expect(streams.faults).toEqual([]);
    const { faults, checks } = await soakResets(vm, { paths, count: RESETS });
    expect([faults, checks]).toEqual([[], 1]);
    await vm.remove({ force: true });
  },
  (RESTORES + RESETS) * BOOT_MS,
);
