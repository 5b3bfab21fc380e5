/** A real guest and its host: bytes and connections between the two, and what the filter takes of them. */
import { resolvePaths } from '../config/paths.ts';
import { StateError } from '../errors.ts';
import { GUEST_SERVER, TapLab } from '../network/index.ts';
import { Vm } from '../vm/index.ts';
import { interleave, type Measurement } from './interleave.ts';
import type { BenchSeries } from './report.ts';
import type { BenchOptions, WantedRatio } from './subject.ts';

/** A guest's Node starts in some seconds. */
const READY_MS = 60_000;
/** Each sample takes up to a second. */
const RUNS_MAX = 20;

/** What is taken of the tap, by what it is called; `in`: from the host to the guest. */
const FIGURES = [
  ['net.guest.rtt', 'ms', 'rtt'],
  ['net.guest.tcp-in', 'MiB/s', 'tcp'],
  ['net.guest.tcp-out', 'MiB/s', 'tcp-back'],
  ['net.guest.connections', '/s', 'connections'],
] as const;

/** Of each figure. */
export const GUEST_RATIOS: readonly WantedRatio[] = FIGURES.map(([name]) => [
  `${name}-filtered-to-none`,
  `${name}-filtered`,
  `${name}-none`,
]);

/**
 * `net.guest.rtt-*`, `-tcp-in-*`, `-tcp-out-*` and `-connections-*` of one clone over its tap, with its rules
 * (`filtered`) and without any (`none`). At most {@link RUNS_MAX} samples of each.
 * @throws whatever `Vm.fromTemplate` and `TapLab.take` throw; StateError the guest's program ended
 */
export async function measureGuest(
  template: string,
  options: BenchOptions,
): Promise<BenchSeries[]> {
  const paths = options.vm.paths ?? resolvePaths();
  const of = { paths, network: 'nat-filtered', signal: options.signal } as const;
  await using vm = await Vm.fromTemplate(template, of);
  // Of a VM that has died nobody answers, and nobody refuses.
  const signal = AbortSignal.any([options.signal, vm.fault]);
  await startServer(vm, signal);
  await using lab = await TapLab.take({ runtimeDir: paths.runtimeDir, vmId: vm.id, signal });
  const measurements = FIGURES.flatMap(([name, unit, figure]) =>
    [true, false].map((rules): Measurement => ({
      ...{ name: `${name}-${rules ? 'filtered' : 'none'}`, unit },
      sample: () => lab.take(figure, { rules, signal }),
    })),
  );
  // Awaited here: what is returned as a promise is taken after all of the above has been given back.
  return await interleave(measurements, {
    ...options,
    signal,
    runs: Math.min(options.runs, RUNS_MAX),
  });
}

/** It listens, until the VM ends. @throws StateError it ended; TimeoutError; the signal's reason */
async function startServer(vm: Vm, signal: AbortSignal): Promise<void> {
  let isReady = (): void => undefined;
  const ready = new Promise<void>((resolve) => (isReady = resolve));
  const program = await vm.commands.run(['node', '-e', GUEST_SERVER], {
    ...{ background: true, timeoutMs: 0, signal },
    onStdout: () => isReady(),
  });
  const over = new AbortController();
  const ended = async () => {
    const wait = { timeoutMs: READY_MS, signal: AbortSignal.any([signal, over.signal]) };
    await program.wait({ ...wait, reject: false });
    throw new StateError(`the benchmark’s program in VM ${vm.id} ended: ${program.stderr}`, {
      ...{ vmId: vm.id, actual: 'ended', required: ['running'] },
    });
  };
  try {
    await Promise.race([ready, ended()]);
  } finally {
    over.abort();
  }
}
