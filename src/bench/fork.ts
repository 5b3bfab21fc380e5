import { events, type EventOf } from '../events.ts';
import { Vm } from '../vm/index.ts';
import { cloneOnce, openTemplate } from './clone.ts';
import { interleave } from './interleave.ts';
import type { BenchReport, BenchSeries } from './report.ts';
import { beginRun, makeReport, subjectOf, type BenchOptions } from './subject.ts';

/** Children of a fork, where no number is given. */
const DEFAULT_CHILDREN = 4;

interface ForkTimes {
  /** While what ran in the original stood still, ms. */
  readonly pause: number;
  /** Call to the end of the first `true` in the first child, ms. */
  readonly first: number;
  /** Call to the end of the first `true` in each child, ms. */
  readonly all: number;
}

/** Forks a VM, has each child do something, and throws the children away. */
async function forkOnce(vm: Vm, count: number, signal: AbortSignal): Promise<ForkTimes> {
  let forked: EventOf<'vm.forked'> | undefined;
  const unsubscribe = events.subscribe((event) => {
    if (event.type === 'vm.forked' && event.vmId === vm.id) forked = event;
  });
  const called = performance.now();
  let children: Vm[] = [];
  try {
    children = await vm.fork({ count, signal });
    const ends = await Promise.all(
      children.map(async (child) => {
        await child.commands.run(['true'], { signal });
        return performance.now() - called;
      }),
    );
    return { pause: forked?.pausedMs ?? NaN, first: Math.min(...ends), all: Math.max(...ends) };
  } finally {
    unsubscribe();
    for (const child of children) await child.close();
  }
}

/**
 * `fork.pause` (what ran in the original stood still), `fork.first` (call to the end of the first `true`
 * in the one child) and `fork.all` (to that in the last of several), beside `clone.exec` (call to the end
 * of the first `true` in a clone of the same template). The VM that is forked is such a clone; it writes
 * to its memory between two forks no more than a `true` does.
 *
 * @throws whatever `createTemplate`, `Vm.fromTemplate`, `vm.fork` and `vm.commands.run` throw
 */
export async function benchFork(options: BenchOptions): Promise<BenchReport> {
  const begun = beginRun();
  const count = options.fork.count ?? DEFAULT_CHILDREN;
  await using template = await openTemplate(options);
  await using vm = await Vm.fromTemplate(template.name, { paths: options.vm.paths });
  await vm.commands.run(['true']);
  const subject = await subjectOf(await vm.info(), options);
  const pauses: number[] = [];
  const taken = await interleave(
    [
      {
        name: 'fork.first',
        unit: 'ms',
        sample: async (signal) => {
          const { pause, first } = await forkOnce(vm, 1, signal);
          pauses.push(pause);
          return first;
        },
      },
      {
        name: 'clone.exec',
        unit: 'ms',
        sample: async () => (await cloneOnce(template.name, options)).exec,
      },
      {
        name: 'fork.all',
        unit: 'ms',
        sample: async (signal) => (await forkOnce(vm, count, signal)).all,
      },
    ],
    options,
  );
  const series: BenchSeries[] = [
    { name: 'fork.pause', unit: 'ms', samples: pauses.slice(-options.runs) },
    ...taken,
  ];
  return makeReport(begun, subject, series, [
    ['fork.first-to-clone', 'fork.first', 'clone.exec'],
    ['fork.all-to-clone', 'fork.all', 'clone.exec'],
    ['fork.pause-to-clone', 'fork.pause', 'clone.exec'],
  ]);
}
