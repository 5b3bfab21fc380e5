import { setTimeout as delay } from 'node:timers/promises';
import { VmPool } from '../pool/index.ts';
import { Vm } from '../vm/index.ts';
import { interleave } from './interleave.ts';
import type { BenchReport } from './report.ts';
import { beginRun, makeReport, subjectOf, type BenchOptions } from './subject.ts';

/** One to be used, one that stands ready meanwhile. */
const POOL_SIZE = 2;
/** Between two looks whether the pool is warm. */
const WARM_POLL_MS = 5;

/** One user after the other of one pool: what each of them waits for. */
class Users {
  readonly acquire: number[] = [];
  readonly release: number[] = [];
  readonly #pool: VmPool;
  readonly #signal: AbortSignal;

  constructor(pool: VmPool, signal: AbortSignal) {
    this.#pool = pool;
    this.#signal = signal;
  }

  /** One cycle; ms from the call of `acquire` to the end of a first `true`. */
  async sample(): Promise<number> {
    await this.warm();
    const called = performance.now();
    const lease = await this.#pool.acquire({ signal: this.#signal });
    const acquired = performance.now();
    await lease.vm.commands.run(['true'], { signal: this.#signal });
    const done = performance.now();
    await lease.release();
    this.release.push(performance.now() - done);
    this.acquire.push(acquired - called);
    return done - called;
  }

  /** Waits until all VMs stand ready: one that is being worked on keeps a core busy. */
  async warm(): Promise<void> {
    for (;;) {
      const { idle, making, resetting } = this.#pool.stats();
      if (idle === POOL_SIZE && making + resetting === 0) return;
      await delay(WARM_POLL_MS, undefined, { signal: this.#signal });
    }
  }
}

/**
 * `pool.acquire` (from a warm pool), `pool.acquire-exec` (to the end of the first `true`) and
 * `pool.release` of the same cycles, beside `pool.warm-exec`: `true` in a VM that has run it before.
 *
 * @throws whatever `VmPool.create`, `pool.acquire` and `vm.commands.run` throw
 */
export async function benchPool(options: BenchOptions): Promise<BenchReport> {
  const { signal, runs, pool: of } = options;
  const begun = beginRun();
  const { template } = of;
  const { name: _, ...booted } = options.vm;
  const { paths, qemuPath, timeoutMs } = options.vm;
  const vm = template === undefined ? booted : { paths, qemuPath, timeoutMs };
  const size = { minSize: POOL_SIZE, maxSize: POOL_SIZE };
  await using pool = await VmPool.create({ ...of, vm, ...size, signal });
  await using warm =
    template === undefined
      ? await Vm.create({ ...vm, signal })
      : await Vm.fromTemplate(template, { ...vm, signal });
  const users = new Users(pool, signal);
  const taken = await interleave(
    [
      { name: 'pool.acquire-exec', unit: 'ms', sample: () => users.sample() },
      {
        name: 'pool.warm-exec',
        unit: 'ms',
        sample: async () => {
          await users.warm();
          const called = performance.now();
          await warm.commands.run(['true'], { signal });
          return performance.now() - called;
        },
      },
    ],
    options,
  );
  return makeReport(
    begun,
    await subjectOf(await warm.info(), options),
    [
      { name: 'pool.acquire', unit: 'ms', samples: users.acquire.slice(-runs) },
      ...taken,
      { name: 'pool.release', unit: 'ms', samples: users.release.slice(-runs) },
    ],
    [['pool.acquire-exec-to-warm', 'pool.acquire-exec', 'pool.warm-exec']],
  );
}
