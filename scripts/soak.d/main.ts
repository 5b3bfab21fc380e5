/** scripts/soak: clones, users, resets and streams by the hundred. See docs/templates.md. */
import { randomBytes } from 'node:crypto';
import { availableParallelism } from 'node:os';
import { Command, InvalidArgumentError } from 'commander';
import { resolvePaths } from '../../src/config/paths.ts';
import { quantile } from '../../src/quantile.ts';
import type { StatePaths } from '../../src/vm/api.ts';
import { createTemplate, TemplateStore, Vm } from '../../src/vm/index.ts';
import { soakClones } from './clones.ts';
import { soakCycles } from './cycles.ts';
import { describeStock, leftSince, takeStock } from './leaks.ts';
import { soakPool } from './pool.ts';
import { soakResets } from './resets.ts';
import { soakRestores } from './restores.ts';

const USER_MS = 120_000;
/** Of a VM whose snapshots are taken: what it needs, and no more to be saved. */
const MEMORY_MIB = 512;
/** Cycles after which everything that is loaded at its first use has been. */
const WARM_CYCLES = 10;
/** Progress is told after so many. */
const TELL = 25;

interface SoakArguments {
  readonly clones: number;
  readonly users: number;
  readonly cycles: number;
  readonly resets: number;
  readonly restores: number;
  readonly streams: number;
  readonly atOnce: number;
}

/** What a part has shown: figures in words, and what is wrong. */
interface Shown {
  readonly words: string;
  readonly faults: readonly string[];
}

/** The first signal is for what has been done so far to be told, the second breaks off. */
const [enough, stop] = [new AbortController(), new AbortController()];
for (const name of ['SIGINT', 'SIGTERM'] as const) {
  process.on(name, () => {
    if (enough.signal.aborted) stop.abort(new Error(`ended by ${name}`));
    enough.abort();
  });
}
const { signal } = stop;
const bounds = { signal, enough: enough.signal };
const paths: StatePaths = resolvePaths();

async function soak(o: SoakArguments): Promise<void> {
  const all: Shown[] = [];
  const { atOnce } = o;
  await withTemplate(o.clones + o.users + o.cycles > 0, async (template) => {
    const clones = (count: number) =>
      soakClones(template, { ...bounds, paths, count, atOnce, onDone: teller('clone', count) });
    if (o.clones > 0) {
      await clones(1); // what is loaded at the first use is no leak
      const part = async () => {
        const { clones: done, faults, compared } = await clones(o.clones);
        return { words: `${done} clones, compared: ${compared.join(', ')}`, faults };
      };
      all.push(await measured(part));
    }
    const users = (count: number) =>
      soakPool(template, {
        ...{ ...bounds, paths, count, timeoutMs: USER_MS },
        onDone: teller('user', count),
      });
    if (o.users > 0) {
      await users(1);
      const part = async () => {
        const { users: done, faults } = await users(o.users);
        return { words: `${done} users`, faults };
      };
      all.push(await measured(part));
    }
    const cycles = (count: number) =>
      soakCycles(template, { ...bounds, paths, count, atOnce, onDone: teller('cycle', count) });
    if (o.cycles > 0) {
      await cycles(WARM_CYCLES);
      const part = async () => {
        const { cycles: done, ends, unborn, faults } = await cycles(o.cycles);
        const told = Object.entries(ends).map(([end, count]) => `${count} ${end}`);
        return { words: `${done} cycles: ${told.join(', ')} (${unborn} unborn)`, faults };
      };
      all.push(await measured(part));
    }
  });
  if (o.resets + o.restores > 0) await withVm(() => Promise.resolve()); // as for the clones
  if (o.resets > 0) all.push(await measured(() => resets(o.resets)));
  if (o.restores > 0) all.push(await measured(() => restores(o.restores, o.streams)));
  for (const fault of all.flatMap(({ faults }) => faults))
    process.stdout.write(`fault: ${fault}\n`);
  for (const { words, faults } of all) process.stdout.write(`${words}; ${faults.length} faults\n`);
  if (all.some(({ faults }) => faults.length > 0)) process.exitCode = 1;
}

async function resets(count: number): Promise<Shown> {
  const onDone = teller('reset', count);
  return withVm(async (vm) => {
    const { checks, restoreMs, faults } = await soakResets(vm, { ...bounds, paths, count, onDone });
    const [p50, p95] = [0.5, 0.95].map((q) => quantile(restoreMs, q).toFixed(0));
    const words = `${restoreMs.length} resets, ${checks} looks at the disk; ${p50} ms p50, ${p95} ms p95`;
    return { words, faults };
  });
}

async function restores(count: number, streams: number): Promise<Shown> {
  const onDone = teller('restore', count);
  return withVm(async (vm) => {
    await using other = await Vm.connect(vm.id, { paths, signal });
    const report = await soakRestores(vm, { ...bounds, count, streams, other, onDone });
    const { restores: done, lastEndMs, nextExecMs, faults } = report;
    const figures = `last wait ended after ${lastEndMs.toFixed(0)} ms, next exec ${nextExecMs.toFixed(0)} ms at most`;
    return { words: `${done} restores, ${streams} streams; ${figures}`, faults };
  });
}

/** A part of the soak, with what it leaves as further faults. */
async function measured(part: () => Promise<Shown>): Promise<Shown> {
  const before = await takeStock(paths);
  const startedAt = performance.now();
  const { words, faults } = await part();
  const seconds = ((performance.now() - startedAt) / 1_000).toFixed(0);
  const left = await leftSince(before, paths);
  const after = await takeStock(paths);
  say(`before: ${describeStock(before)}`);
  say(`after:  ${describeStock(after)}`);
  return { words: `${words}; ${seconds} s`, faults: [...faults, ...left] };
}

async function withTemplate(
  isNeeded: boolean,
  work: (template: string) => Promise<void>,
): Promise<void> {
  if (!isNeeded) return;
  const template = `soak-${randomBytes(4).toString('hex')}`;
  await createTemplate(template, { paths, signal, network: 'isolated' });
  try {
    await work(template);
  } finally {
    await new TemplateStore(paths).remove(template);
  }
}

async function withVm<T>(work: (vm: Vm) => Promise<T>): Promise<T> {
  await using vm = await Vm.create({
    ...{ paths, signal, persistent: true, memoryMib: MEMORY_MIB, network: 'isolated' },
  });
  try {
    return await work(vm);
  } finally {
    await vm.remove({ force: true });
  }
}

function teller(what: string, count: number): (done: number) => void {
  return (done) => {
    if (done % TELL === 0 || done === count) say(`${what} ${done}/${count}`);
  };
}

function say(text: string): void {
  process.stderr.write(`${text}\n`);
}

function parseCount(text: string): number {
  const count = Number(text);
  if (text.trim() !== '' && Number.isInteger(count) && count >= 0 && count <= 100_000) return count;
  throw new InvalidArgumentError('give a whole number from 0 to 100000.');
}

function parseSeveral(text: string): number {
  const count = parseCount(text);
  if (count >= 1 && count <= 200) return count;
  throw new InvalidArgumentError('give a whole number from 1 to 200.');
}

await new Command('scripts/soak')
  .description(
    'Clones, users of a pool, resets and open streams, by the hundred; looks for twins, for damage, for what hangs and what is left. Each count may be 0: that part is left out.',
  )
  .option('--clones <n>', 'clones that are compared with each other', parseCount, 300)
  .option('--users <n>', 'users of a pool, one after the other', parseCount, 200)
  .option('--cycles <n>', 'clones made and ended, in every way', parseCount, 1_000)
  .option('--resets <n>', 'restores of a VM under heavy writes, its disk checked', parseCount, 200)
  .option('--restores <n>', 'restores of a VM with open streams', parseCount, 100)
  .option('--streams <n>', 'streams that are open at each of those', parseSeveral, 64)
  .option('--at-once <n>', 'clones at the same time', parseSeveral, availableParallelism())
  .action(soak)
  .parseAsync();
