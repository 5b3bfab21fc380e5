/** `qmp-agent bench`: figures beside their floors. */
import { writeFile } from 'node:fs/promises';
import { Command, InvalidArgumentError, Option } from 'commander';
import type { BenchReport } from '../../bench/report.ts';
import type { BenchOptions } from '../../bench/subject.ts';
import { STRATEGIES } from '../../pool/options.ts';
import type { PoolStrategy } from '../../pool/types.ts';
import { addVmOptions } from '../config-flags.ts';
import type { CliContext } from '../context.ts';
import { openImages, vmOptions } from '../vm-access.ts';

interface BenchFlags {
  runs: number;
  json?: string;
  strategy?: PoolStrategy;
  template?: string;
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
    description: 'a snapshot restored in place, beside a VM thrown away for a new one',
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
    name: 'pool',
    description: 'acquire and release of pooled VMs, beside a command in a VM that is warm',
    runs: 30,
    options: [
      new Option('--template <name>', 'template of which the VMs are clones'),
      new Option('--strategy <name>', 'how used VMs are made as new').choices(STRATEGIES),
    ],
    load: async () => (await import('../../bench/pool.ts')).benchPool,
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
      .option('--runs <n>', 'samples of each figure', parseRuns, entry.runs)
      .option('--json <file>', 'write the report as JSON to a file, or to stdout with -')
      .action((flags: BenchFlags) => run(context, entry, flags));
    for (const option of entry.options ?? []) command.addOption(option);
    addVmOptions(command);
  }
}

function parseRuns(text: string): number {
  const runs = Number(text);
  if (!Number.isInteger(runs) || runs < 1 || runs > RUNS_MAX) {
    throw new InvalidArgumentError(`give a whole number from 1 to ${RUNS_MAX}.`);
  }
  return runs;
}

async function run(context: CliContext, entry: BenchEntry, flags: BenchFlags): Promise<void> {
  const [measure, store, { formatReport }] = await Promise.all([
    entry.load(),
    openImages(context),
    import('../../bench/report.ts'),
  ]);
  const report = await measure({
    runs: flags.runs,
    vm: vmOptions(context, undefined),
    pool: { strategy: flags.strategy, template: flags.template },
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
