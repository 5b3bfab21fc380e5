/** `qmp-agent bench`: figures beside their floors. */
import { writeFile } from 'node:fs/promises';
import { Command, Option } from 'commander';
import type { BenchReport } from '../../bench/report.ts';
import type { BenchOptions } from '../../bench/subject.ts';
import { STRATEGIES } from '../../pool/options.ts';
import type { PoolStrategy } from '../../pool/types.ts';
import { MAX_CHILDREN } from '../../vm/fork/limits.ts';
import { addVmOptions, wholeNumberTo } from '../config-flags.ts';
import type { CliContext } from '../context.ts';
import { openImages, vmOptions } from '../vm-access.ts';

interface BenchFlags {
  runs: number;
  json?: string;
  strategy?: PoolStrategy;
  template?: string;
  count?: number;
}

/** One benchmark: what it measures, and how many samples make sense where none are asked for. */
interface BenchEntry {
  readonly name: string;
  readonly description: string;
  readonly runs: number;
  /** Besides those that all have. */
  readonly options?: readonly Option[];
  readonly load: () => Promise<(options: BenchOptions) => Promise<BenchReport>>;
}

const BENCHES: readonly BenchEntry[] = [
  {
    name: 'boot',
    description: 'spawn to agent answering, beside bare QEMU with the same kernel and disk',
    runs: 10,
    load: async () => (await import('../../bench/boot.ts')).benchBoot,
  },
  {
    name: 'exec',
    description: 'ping, exec of `true` and streams, beside a plain Node program and a raw echo',
    runs: 100,
    load: async () => (await import('../../bench/exec.ts')).benchExec,
  },
  {
    name: 'reset',
    description: 'a snapshot restored in place and a new clone, beside a VM that is booted anew',
    runs: 10,
    load: async () => (await import('../../bench/reset.ts')).benchReset,
  },
  {
    name: 'clone',
    description: 'a clone of a template, beside a cold boot and a QEMU with nothing in it',
    runs: 10,
    load: async () => (await import('../../bench/clone.ts')).benchClone,
  },
  {
    name: 'fork',
    description: 'children of a running VM and how long it stands still, beside a clone',
    runs: 10,
    options: [
      new Option('--count <n>', 'children of `fork.all` (default: 4)').argParser(
        wholeNumberTo(MAX_CHILDREN),
      ),
    ],
    load: async () => (await import('../../bench/fork.ts')).benchFork,
  },
  {
    name: 'pool',
    description: 'acquire and release of pooled VMs, beside a command in a VM that is warm',
    runs: 30,
    options: [
      new Option('--template <name>', 'template of which the VMs are clones'),
      new Option('--strategy <name>', 'how used VMs are made as new').choices(STRATEGIES),
    ],
    load: async () => (await import('../../bench/pool.ts')).benchPool,
  },
  {
    name: 'net',
    description:
      'rules, packets and connections beside 2 and 1,000 VMs, a guest with its filter and without, and what a tap costs a clone',
    runs: 10,
    load: async () => (await import('../../bench/net.ts')).benchNet,
  },
  {
    name: 'density',
    description: 'memory and processor time of clones (--runs of them) that are idle at once',
    runs: 20,
    load: async () => (await import('../../bench/density.ts')).benchDensity,
  },
];

/** Most samples of one figure. */
const RUNS_MAX = 10_000;

/** Adds `bench` with one subcommand for each benchmark. */
export function registerBench(program: Command, context: CliContext): void {
  const bench = program
    .command('bench')
    .description('Measure this host. Each figure stands beside its floor.');
  for (const entry of BENCHES) {
    const command = bench
      .command(entry.name)
      .description(`Measure ${entry.description}.`)
      .option('--runs <n>', 'samples of each figure', wholeNumberTo(RUNS_MAX), entry.runs)
      .option('--json <file>', 'write the report as JSON to a file, or to stdout with -')
      .action((flags: BenchFlags) => run(context, entry, flags));
    for (const option of entry.options ?? []) command.addOption(option);
    addVmOptions(command);
  }
}

async function run(context: CliContext, entry: BenchEntry, flags: BenchFlags): Promise<void> {
  const [measure, store, { formatReport }] = await Promise.all([
    entry.load(),
    openImages(context),
    import('../../bench/report.ts'),
  ]);
  const report = await measure({
    runs: flags.runs,
    // Figures do not depend on how the host is set up.
    vm: { ...vmOptions(context, undefined), defaultNetwork: 'isolated' },
    pool: { strategy: flags.strategy, template: flags.template },
    fork: { count: flags.count },
    store,
    qemuPath: context.config.qemu.path,
    signal: context.signal,
    onSample: (name, value, done, total) => {
      context.note(`${done}/${total} ${name} ${value.toFixed(1)}`);
    },
  });
  const json = `${JSON.stringify(report, undefined, 2)}\n`;
  if (flags.json === '-') {
    context.stdout.write(json);
    return;
  }
  if (flags.json !== undefined) await writeFile(flags.json, json);
  context.stdout.write(formatReport(report));
}
