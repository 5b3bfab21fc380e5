import { randomBytes } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { execa } from 'execa';
import { QmpClient } from '../../qmp/index.ts';
import { QmpConnectError } from '../errors.ts';
import type { NetworkMode } from '../vm/api.ts';
import { createTemplate, TemplateStore, Vm } from '../vm/index.ts';
import { interleave } from './interleave.ts';
import type { BenchReport, BenchSeries } from './report.ts';
import {
  beginRun,
  makeReport,
  subjectOf,
  type BenchOptions,
  type BenchSubject,
} from './subject.ts';

/** Between two tries to reach the QMP socket of a QEMU that has just been spawned. */
const RETRY_MS = 1;
/** What the making of a clone left to be done in this process, ms. */
export const SETTLE_MS = 100;
/** A bare QEMU answers within this time, or something is wrong with it. */
const FLOOR_TIMEOUT_MS = 10_000;

/** A template for the time of a run. */
export async function openTemplate(
  options: BenchOptions,
  more: { network?: NetworkMode | undefined } = {},
): Promise<AsyncDisposable & { readonly name: string }> {
  const { paths } = options.vm;
  if (paths === undefined) throw new TypeError('a benchmark of clones needs the state directory');
  const name = `bench-${randomBytes(4).toString('hex')}`;
  const { image, vcpus, memoryMib, diskMib, accel, machine, channel, qemuPath } = options.vm;
  await createTemplate(name, {
    ...{ image, vcpus, memoryMib, diskMib, accel, machine, channel, qemuPath, paths },
    network: 'isolated',
    signal: options.signal,
    ...more,
  });
  return {
    name,
    [Symbol.asyncDispose]: () => new TemplateStore(paths).remove(name),
  };
}

/** What is measured where clones are. */
export async function subjectOfClone(
  template: string,
  options: BenchOptions,
): Promise<BenchSubject> {
  const { vm, signal } = options;
  await using clone = await Vm.fromTemplate(template, { paths: vm.paths, signal });
  return await subjectOf(await clone.info(), options);
}

/** One clone: ms from the call to running vCPUs, and to the end of the first `true`. */
export async function cloneOnce(
  template: string,
  { vm: { paths }, signal }: BenchOptions,
  more: { network?: NetworkMode | undefined } = {},
): Promise<{ running: number; exec: number }> {
  const called = performance.now();
  let running = 0;
  await using vm = await Vm.fromTemplate(template, {
    paths,
    signal,
    ...more,
    onProgress: (step) => {
      if (step === 'boot') running = performance.now();
    },
  });
  await vm.commands.run(['true'], { signal });
  return { running: running - called, exec: performance.now() - called };
}

/** One clone that was kept ready: ms from `resume` to the end of its first `true`. */
async function activateOnce(
  template: string,
  { vm: { paths }, signal }: BenchOptions,
): Promise<number> {
  await using vm = await Vm.fromTemplate(template, { paths, signal, paused: true });
  await delay(SETTLE_MS, undefined, { signal });
  const called = performance.now();
  await vm.resume({ signal });
  await vm.commands.run(['true'], { signal });
  return performance.now() - called;
}

/** ms from the call to the end of the first `true` of a VM that boots. */
async function bootOnce({ vm, signal }: BenchOptions): Promise<number> {
  const called = performance.now();
  await using booted = await Vm.create({ ...vm, signal });
  await booted.commands.run(['true'], { signal });
  return performance.now() - called;
}

/** ms from the spawn of a QEMU with nothing in it to its answer to `qmp_capabilities`. */
async function bareQemu({ qemuPath, signal }: BenchOptions): Promise<number> {
  const dir = await mkdtemp(join(tmpdir(), 'qmp-agent-floor-'));
  const path = join(dir, 'qmp.sock');
  const spawned = performance.now();
  const qemu = execa(
    qemuPath,
    [
      ...['-S', '-M', 'none', '-nodefaults', '-no-user-config', '-display', 'none'],
      ...['-qmp', `unix:${path},server=on,wait=off`],
    ],
    { stdio: 'ignore', reject: false, killSignal: 'SIGKILL', cancelSignal: signal },
  );
  try {
    for (;;) {
      try {
        await using _client = await QmpClient.connect({ path, signal });
        return performance.now() - spawned;
      } catch (error) {
        const late = performance.now() - spawned > FLOOR_TIMEOUT_MS;
        if (!(error instanceof QmpConnectError) || late) throw error;
        await delay(RETRY_MS, undefined, { signal });
      }
    }
  } finally {
    qemu.kill('SIGKILL');
    await qemu;
    await rm(dir, { recursive: true, force: true });
  }
}

/**
 * `clone.running` (call to running vCPUs) and `clone.exec` (to the end of the first `true`) of the same
 * clones, beside `clone.activate` (a clone kept ready and paused: from `resume` to the end of a `true`),
 * `clone.coldboot` (the same image booted) and `clone.floor` (a QEMU with nothing in it,
 * from spawn to the reply to `qmp_capabilities`).
 *
 * @throws whatever `createTemplate`, `Vm.fromTemplate` and `vm.commands.run` throw
 */
export async function benchClone(options: BenchOptions): Promise<BenchReport> {
  const begun = beginRun();
  await using template = await openTemplate(options);
  const subject = await subjectOfClone(template.name, options);
  const running: number[] = [];
  const taken = await interleave(
    [
      {
        name: 'clone.exec',
        unit: 'ms',
        sample: async () => {
          const clone = await cloneOnce(template.name, options);
          running.push(clone.running);
          return clone.exec;
        },
      },
      {
        name: 'clone.activate',
        unit: 'ms',
        sample: () => activateOnce(template.name, options),
      },
      { name: 'clone.floor', unit: 'ms', sample: () => bareQemu(options) },
      { name: 'clone.coldboot', unit: 'ms', sample: () => bootOnce(options) },
    ],
    options,
  );
  const series: BenchSeries[] = [
    ...taken,
    { name: 'clone.running', unit: 'ms', samples: running.slice(-options.runs) },
  ];
  return makeReport(begun, subject, series, [
    ['clone.coldboot-to-exec', 'clone.coldboot', 'clone.exec'],
    ['clone.activate-to-exec', 'clone.activate', 'clone.exec'],
    ['clone.running-to-floor', 'clone.running', 'clone.floor'],
  ]);
}
