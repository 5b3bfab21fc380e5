import type { ImageStore, Image } from '../image/index.ts';
import {
  findQemu,
  type Accel,
  type MachineType,
  type VmCreateOptions,
  type VmInfo,
} from '../vm/index.ts';
import { StateError } from '../errors.ts';
import type { PoolOptions } from '../pool/index.ts';
import { currentLoad, takeFingerprint } from './fingerprint.ts';
import { BENCH_SCHEMA, ratio, summarise, type BenchReport, type BenchSeries } from './report.ts';

/** What every benchmark is given. */
export interface BenchOptions {
  /** Samples of each figure. */
  runs: number;
  /** Of the VMs measured: image, vcpus, memory, machine, accelerator. */
  vm: VmCreateOptions;
  /** Of `bench pool`: what its VMs are, and how they are made as new. */
  pool: Pick<PoolOptions, 'strategy' | 'template'>;
  /** Of `bench fork`: how many children `fork.all` makes. */
  fork: { readonly count?: number | undefined };
  store: ImageStore;
  qemuPath: string;
  signal: AbortSignal;
  onSample?: ((name: string, value: number, done: number, total: number) => void) | undefined;
}

/** The VMs' resolved properties, as the first of them told. */
export interface BenchSubject {
  accel: Accel;
  machine: MachineType;
  memoryMib: number;
  image: Image;
  channel: 'vsock' | 'virtio-serial';
  qemuVersion: string;
}

/** Reads the resolved properties off a live VM. */
export async function subjectOf(info: VmInfo, options: BenchOptions): Promise<BenchSubject> {
  const { accel, machine, memoryMib, channel } = info;
  if (accel === undefined) {
    throw new StateError(`VM ${info.id} has no accelerator yet`, {
      vmId: info.id,
      actual: info.state,
      required: ['running'],
    });
  }
  const [image, qemu] = await Promise.all([
    options.store.get(info.image),
    findQemu(options.qemuPath),
  ]);
  return { accel, machine, memoryMib, channel, image, qemuVersion: qemu.version };
}

/** A ratio by its name and two figures: `[name, of, to]`. */
export type WantedRatio = readonly [name: string, of: string, to: string];

/** Puts a report together. `begun` comes from {@link beginRun}. */
export function makeReport(
  begun: { startedAt: string; load: number },
  subject: BenchSubject,
  series: readonly BenchSeries[],
  ratios: readonly WantedRatio[],
): BenchReport {
  const { accel, machine, image, channel, qemuVersion } = subject;
  const on = { qemu: qemuVersion, accel, machine, channel, image: `${image.name}@${image.id}` };
  const results = series.map(summarise);
  return {
    schema: BENCH_SCHEMA,
    startedAt: begun.startedAt,
    fingerprint: takeFingerprint(on, begun.load),
    results,
    ratios: ratios.map(([name, of, to]) => ratio(results, { name, of, to })),
  };
}

/** When a run began and under what load. */
export function beginRun(): { startedAt: string; load: number } {
  return { startedAt: new Date().toISOString(), load: currentLoad() };
}
