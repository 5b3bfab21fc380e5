import { Vm } from '../vm/index.ts';
import { openTemplate } from './clone.ts';
import { interleave } from './interleave.ts';
import type { BenchReport } from './report.ts';
import { beginRun, makeReport, subjectOf, type BenchOptions } from './subject.ts';

/** The snapshot that is restored. */
const CLEAN = 'clean';

/** One restore in place: ms from the call to the end of the first `true`. */
export async function restoreOnce(vm: Vm, snapshot: string, signal: AbortSignal): Promise<number> {
  const called = performance.now();
  await vm.snapshots.restore(snapshot, { signal });
  await vm.commands.run(['true'], { signal });
  return performance.now() - called;
}

/** A VM that is thrown away for a new one at each reset. */
class Replaced implements AsyncDisposable {
  readonly #make: () => Promise<Vm>;
  #vm: Vm | undefined;

  constructor(make: () => Promise<Vm>) {
    this.#make = make;
  }

  /** ms until the next VM has run its first command. */
  async sample(signal: AbortSignal): Promise<number> {
    // The first sample is thrown away, so that it does not matter that there is nothing to end.
    const begun = performance.now();
    await this[Symbol.asyncDispose]();
    this.#vm = await this.#make();
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
 * `reset.savevm` (a snapshot restored in place), `reset.clone` (a clone thrown away, another made of the
 * same template) and `reset.recreate` (the VM thrown away, another one booted): each from the call to the
 * end of the first `true`.
 *
 * @throws whatever `Vm.create`, `vm.snapshots`, `createTemplate`, `Vm.fromTemplate` and `vm.commands.run` throw
 */
export async function benchReset(options: BenchOptions): Promise<BenchReport> {
  const { signal } = options;
  const begun = beginRun();
  await using vm = await Vm.create({ ...options.vm, signal });
  await vm.commands.run(['true'], { signal });
  await vm.snapshots.create(CLEAN, { signal });
  await using template = await openTemplate(options);
  const { paths } = options.vm;
  await using cloned = new Replaced(() => Vm.fromTemplate(template.name, { paths, signal }));
  await using booted = new Replaced(() => Vm.create({ ...options.vm, signal }));
  const series = await interleave(
    [
      {
        name: 'reset.savevm',
        unit: 'ms',
        sample: () => restoreOnce(vm, CLEAN, signal),
      },
      { name: 'reset.clone', unit: 'ms', sample: () => cloned.sample(signal) },
      { name: 'reset.recreate', unit: 'ms', sample: () => booted.sample(signal) },
    ],
    options,
  );
  return makeReport(begun, await subjectOf(await vm.info(), options), series, [
    ['reset.recreate-to-savevm', 'reset.recreate', 'reset.savevm'],
    ['reset.recreate-to-clone', 'reset.recreate', 'reset.clone'],
  ]);
}
