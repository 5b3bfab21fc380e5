import { readFile } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import { StateError } from '../errors.ts';
import { TemplateStore, Vm } from '../vm/index.ts';
import { openTemplate } from './clone.ts';
import { memoryOf, sumMemory, type ProcessMemory } from './process-memory.ts';
import type { BenchReport, BenchSeries } from './report.ts';
import { beginRun, makeReport, subjectOf, type BenchOptions } from './subject.ts';

/** Until what a clone has begun with is over, ms. */
const SETTLE_MS = 5_000;
/** How long the idle clones' processor time is counted, ms. */
const IDLE_MS = 20_000;
/** Kernel ticks a second in /proc/PID/stat (proc(5), USER_HZ; fixed on x86). */
const TICKS_PER_SECOND = 100;
const MIB = 2 ** 20;

/** A VM and its QEMU. */
interface Subject {
  readonly vm: Vm;
  readonly pid: number;
}

/** VMs that are all there at once. */
class Crowd implements AsyncDisposable {
  readonly members: Subject[] = [];

  /** Takes the VM over, and has it run one command: what every user's VM has done. */
  async add(vm: Vm, signal: AbortSignal): Promise<Subject> {
    try {
      await vm.commands.run(['true'], { signal });
      const { pid } = await vm.info();
      if (pid === undefined) {
        const { id, state } = vm;
        throw new StateError(`VM ${id} has no QEMU`, {
          ...{ vmId: id, actual: state, required: ['running'] },
        });
      }
      const subject = { vm, pid };
      this.members.push(subject);
      return subject;
    } catch (error) {
      await vm.close();
      throw error;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const { vm } of this.members.splice(0)) await vm.close();
  }
}

/** Seconds of processor time that a process has used so far (proc(5), utime and stime). */
async function cpuSeconds(pid: number): Promise<number> {
  const text = await readFile(`/proc/${pid}/stat`, 'latin1');
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
  return (Number(fields[11]) + Number(fields[12])) / TICKS_PER_SECOND;
}

/** Percent of one core that each of them takes while nobody asks anything of it. */
async function idleCpu(pids: readonly number[], signal: AbortSignal): Promise<number[]> {
  await delay(SETTLE_MS, undefined, { signal });
  const begun = performance.now();
  const before = await Promise.all(pids.map(cpuSeconds));
  await delay(IDLE_MS, undefined, { signal });
  const after = await Promise.all(pids.map(cpuSeconds));
  const seconds = (performance.now() - begun) / 1000;
  return after.map((used, index) => ((used - (before[index] ?? 0)) / seconds) * 100);
}

/**
 * `--runs` clones of one template, alive and idle at once, each after a first command:
 * `density.pss` (proportional set size of a clone's QEMU: what it shares is divided by those who share
 * it, proc_pid_smaps(5)) and what it is made of, beside `density.cold`, the same of a VM that was booted;
 * `density.idle-cpu` in percent of one core.
 *
 * @throws whatever `createTemplate`, `Vm.fromTemplate` and `vm.commands.run` throw
 */
export async function benchDensity(options: BenchOptions): Promise<BenchReport> {
  const { signal, runs, vm: of, onSample } = options;
  const begun = beginRun();
  await using template = await openTemplate(options);
  const { paths } = of;
  if (paths === undefined) throw new TypeError('a benchmark of clones needs the state directory');
  const { dir } = await new TemplateStore(paths).inspect(template.name);
  await using crowd = new Crowd();
  for (let count = 1; count <= runs; count += 1) {
    const called = performance.now();
    await crowd.add(await Vm.fromTemplate(template.name, { paths, signal }), signal);
    onSample?.('density.clone', performance.now() - called, count, runs);
  }
  const [first] = crowd.members;
  if (first === undefined) throw new RangeError('density of no clones');
  const subject = await subjectOf(await first.vm.info(), options);
  const pids = crowd.members.map(({ pid }) => pid);
  const cpu = await idleCpu(pids, signal);
  const memory = await Promise.all(pids.map((pid) => memoryOf(pid, dir)));
  const cold = await (async () => {
    await using booted = new Crowd();
    const { pid } = await booted.add(await Vm.create({ ...of, signal }), signal);
    return await memoryOf(pid, dir); // before it ends
  })();
  return makeReport(
    begun,
    subject,
    [
      ...seriesOf(memory),
      { name: 'density.cold', unit: 'MiB', samples: [sumMemory(cold) / MIB] },
      { name: 'density.idle-cpu', unit: '%', samples: cpu },
    ],
    [['density.pss-to-cold', 'density.pss', 'density.cold']],
  );
}

function seriesOf(memory: readonly ProcessMemory[]): BenchSeries[] {
  const mib = (of: (one: ProcessMemory) => number) => memory.map((one) => of(one) / MIB);
  return [
    { name: 'density.pss', unit: 'MiB', samples: mib(sumMemory) },
    { name: 'density.guest-own', unit: 'MiB', samples: mib((one) => one.guestOwn) },
    { name: 'density.guest-shared', unit: 'MiB', samples: mib((one) => one.guestShared) },
    { name: 'density.code-cache', unit: 'MiB', samples: mib((one) => one.codeCache) },
    { name: 'density.heap', unit: 'MiB', samples: mib((one) => one.heap) },
    { name: 'density.program', unit: 'MiB', samples: mib((one) => one.program) },
  ];
}
