import { RulesLab } from '../network/index.ts';
import { cloneOnce, openTemplate, SETTLE_MS, subjectOfClone } from './clone.ts';
import { interleave } from './interleave.ts';
import type { BenchReport, BenchSeries } from './report.ts';
import { beginRun, makeReport, type BenchOptions } from './subject.ts';

/** VMs that are there when one more is added. */
const PRESENT = [2, 200, 1000] as const;
/** Rules are added in milliseconds: so many more samples of them. */
const RULES_RUNS_PER_RUN = 3;

/**
 * `net.rules.add-2`, `-200`, `-1000` (one VM's rules where so many are, nft's process included) beside
 * `net.rules.floor` (a transaction about nothing); `net.clone` (a clone with a tap, from the call to the end of
 * its first `true`) beside `net.clone-isolated` (one without), and `net.clone-cost`, the difference of the two.
 *
 * @throws whatever `createTemplate` and `Vm.fromTemplate` throw: the host must be set up for taps
 */
export async function benchNet(options: BenchOptions): Promise<BenchReport> {
  const begun = beginRun();
  const rules = await measureRules(options);
  await using template = await openTemplate(options, { network: 'nat-filtered' });
  const subject = await subjectOfClone(template.name, options);
  const clones = await measureClones(template.name, options);
  return makeReport(
    begun,
    subject,
    [...rules, ...clones],
    [
      ['net.rules.add-200-to-2', 'net.rules.add-200', 'net.rules.add-2'],
      ['net.rules.add-1000-to-2', 'net.rules.add-1000', 'net.rules.add-2'],
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
