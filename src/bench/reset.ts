import { Vm } from '../vm/index.ts';
import { interleave } from './interleave.ts';
import type { BenchReport } from './report.ts';
import { beginRun, makeReport, subjectOf, type BenchOptions } from './subject.ts';

/** The snapshot that is restored. */
const CLEAN = 'clean';

/** A VM that is thrown away for a new one at each reset. */
class Replaced implements AsyncDisposable {
  readonly #options: BenchOptions;
  #vm: Vm | undefined;

  constructor(options: BenchOptions) {
    this.#options = options;
  }

  /** ms until the next VM has run its first command. */
  async sample(): Promise<number> {
    const { signal } = this.#options;
    // The first sample is thrown away, so that it does not matter that there is nothing to end.
    const begun = performance.now();
    await this[Symbol.asyncDispose]();
    this.#vm = await Vm.create({ ...this.#options.vm, signal });
    await this.#vm.commands.run(['true'], { signal });
    return performance.now() - begun;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const vm = this.#vm;
    this.#vm = undefined;
    await vm?.close();
  }
}

/**
 * `reset.savevm` (a snapshot restored in place) and `reset.recreate` (the VM thrown away, another one
 * made): each from the call to the end of the first `true`.
 *
 * @throws whatever `Vm.create`, `vm.snapshots` and `vm.commands.run` throw
 */
export async function benchReset(options: BenchOptions): Promise<BenchReport> {
  const { signal } = options;
  const begun = beginRun();
  await using vm = await Vm.create({ ...options.vm, signal });
  await vm.commands.run(['true'], { signal });
  await vm.snapshots.create(CLEAN, { signal });
  await using replaced = new Replaced(options);
  const series = await interleave(
    [
      {
        name: 'reset.savevm',
        unit: 'ms',
        sample: async () => {
          const called = performance.now();
          await vm.snapshots.restore(CLEAN, { signal });
          await vm.commands.run(['true'], { signal });
          return performance.now() - called;
        },
      },
      { name: 'reset.recreate', unit: 'ms', sample: () => replaced.sample() },
    ],
    options,
  );
  return makeReport(begun, await subjectOf(await vm.info(), options), series, [
    ['reset.savevm-to-recreate', 'reset.savevm', 'reset.recreate'],
  ]);
}
