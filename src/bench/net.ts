import { PathLab, RulesLab } from '../network/index.ts';
import { cloneOnce, openTemplate, SETTLE_MS, subjectOfClone } from './clone.ts';
import { GUEST_RATIOS, measureGuest } from './guest-path.ts';
import { interleave } from './interleave.ts';
import type { BenchReport, BenchSeries } from './report.ts';
import { beginRun, makeReport, type BenchOptions } from './subject.ts';

/** VMs that are there when one more is added. */
const PRESENT = [2, 200, 1000] as const;
/** Rules are added in milliseconds: so many more samples of them. */
const RULES_RUNS_PER_RUN = 3;
/** Hosts through which packets go: without any rules, and with those of so many VMs. */
const PATHS = [
  ['none', 0],
  ['2', 2],
  ['1000', 1000],
] as const;
const PATH_FIGURES = [
  ['packet', 'us'],
  ['rtt', 'ms'],
  ['tcp', 'MiB/s'],
  ['connections', '/s'],
] as const;

/**
 * `net.rules.add-2`, `-200`, `-1000` (one VM's rules where so many are, nft's process included) beside
 * `net.rules.floor` (a transaction about nothing); `net.clone` (a clone with a tap, from the call to the end of
 * its first `true`) beside `net.clone-isolated` (one without), and `net.clone-cost`, the difference of the two.
 *
 * `net.packet-*` (processor time of one), `net.rtt-*`, `net.tcp-*` and `net.connections-*` are of hosts that have no
 * rules (`none`) or those of 2 or 1,000 VMs, with namespaces for a guest and a server.
 * `net.guest.*` are of a real one, see `measureGuest`.
 *
 * @throws whatever `createTemplate` and `Vm.fromTemplate` throw: the host must be set up for taps
 */
export async function benchNet(options: BenchOptions): Promise<BenchReport> {
  const begun = beginRun();
  const rules = await measureRules(options);
  const paths = await measurePaths(options);
  await using template = await openTemplate(options, { network: 'nat-filtered' });
  const subject = await subjectOfClone(template.name, options);
  const guest = await measureGuest(template.name, options);
  const clones = await measureClones(template.name, options);
  return makeReport(
    begun,
    subject,
    [...rules, ...paths, ...guest, ...clones],
    [
      ['net.rules.add-200-to-2', 'net.rules.add-200', 'net.rules.add-2'],
      ['net.rules.add-1000-to-2', 'net.rules.add-1000', 'net.rules.add-2'],
      ['net.packet-1000-to-2', 'net.packet-1000', 'net.packet-2'],
      ['net.packet-2-to-none', 'net.packet-2', 'net.packet-none'],
      ['net.tcp-2-to-none', 'net.tcp-2', 'net.tcp-none'],
      ...GUEST_RATIOS,
      ['net.clone-to-isolated', 'net.clone', 'net.clone-isolated'],
    ],
  );
}

async function measureRules(options: BenchOptions): Promise<BenchSeries[]> {
  const { signal, runs, onSample } = options;
  await using lab = await RulesLab.open({ signal });
  const series: BenchSeries[] = [];
  for (const count of PRESENT) {
    await lab.fill(count, { signal });
    const floor = {
      name: 'net.rules.floor',
      unit: 'ms',
      sample: () => lab.floor({ signal }),
    } as const;
    const add = {
      name: `net.rules.add-${count}`,
      unit: 'ms',
      sample: () => lab.addOne({ signal }),
    } as const;
    const taken = await interleave(count === PRESENT[0] ? [floor, add] : [add], {
      ...{ runs: runs * RULES_RUNS_PER_RUN, signal, onSample },
    });
    series.push(...taken);
  }
  return series;
}

async function measurePaths(options: BenchOptions): Promise<BenchSeries[]> {
  const { signal } = options;
  const labs = new Map<string, PathLab>();
  try {
    for (const [name, vms] of PATHS) labs.set(name, await PathLab.open({ vms, signal }));
    const measurements = PATH_FIGURES.flatMap(([figure, unit]) =>
      [...labs].map(([name, lab]) => ({
        ...{ name: `net.${figure}-${name}`, unit },
        sample: () => lab.take(figure, { signal }),
      })),
    );
    return await interleave(measurements, options);
  } finally {
    for (const lab of labs.values()) await lab[Symbol.asyncDispose]();
  }
}

async function measureClones(template: string, options: BenchOptions): Promise<BenchSeries[]> {
  const clone = async (network: 'nat-filtered' | 'isolated'): Promise<number> =>
    (await cloneOnce(template, options, { network })).exec;
  const taken = await interleave(
    [
      { name: 'net.clone', unit: 'ms', sample: () => clone('nat-filtered') },
      { name: 'net.clone-isolated', unit: 'ms', sample: () => clone('isolated') },
    ],
    { ...options, settleMs: SETTLE_MS },
  );
  const [joined, isolated] = taken;
  const samples = (joined?.samples ?? []).map((ms, n) => ms - (isolated?.samples[n] ?? 0));
  return [...taken, { name: 'net.clone-cost', unit: 'ms', samples }];
}
