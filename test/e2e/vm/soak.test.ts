/** What `scripts/soak` does by the hundred, for a few. */
import { afterAll, beforeAll, expect, it } from 'vitest';
import { soakClones } from '../../../scripts/soak.d/clones.ts';
import { leaks, takeStock } from '../../../scripts/soak.d/leaks.ts';
import { soakPool } from '../../../scripts/soak.d/pool.ts';
import { createTemplate, TemplateStore } from '../../../src/vm/index.ts';
import { BOOT_MS, useTestState } from './state.ts';

const CLONES = 6;
const USERS = 6;
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
    const { faults } = await soakClones('soak', { paths, count: CLONES });
    expect([...faults, ...leaks(before, await takeStock(paths))]).toEqual([]);
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
    expect([...faults, ...leaks(before, await takeStock(paths))]).toEqual([]);
  },
  USERS * BOOT_MS,
);
