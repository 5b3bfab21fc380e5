/** scripts/compare-libvirt: resets by snapshot, ours and libvirt's, in turn. */
import { writeFile } from 'node:fs/promises';
import { Command, InvalidArgumentError } from 'commander';
import { interleave } from '../../src/bench/interleave.ts';
import { restoreOnce } from '../../src/bench/reset.ts';
import { formatReport } from '../../src/bench/report.ts';
import { beginRun, makeReport, subjectOf } from '../../src/bench/subject.ts';
import { resolvePaths } from '../../src/config/paths.ts';
import { findQemu, openImageStore, Vm } from '../../src/vm/index.ts';
import { Domain } from './domain.ts';

const SNAPSHOT = 'clean';
const stop = new AbortController();
for (const name of ['SIGINT', 'SIGTERM'] as const) {
  process.once(name, () => stop.abort(new Error(`ended by ${name}`)));
}

async function compare({ runs, json }: { runs: number; json?: string }): Promise<void> {
  const { signal } = stop;
  const begun = beginRun();
  const store = openImageStore(resolvePaths());
  const image = await store.get('base');
  const { path: qemuPath } = await findQemu('qemu-system-x86_64');
  // TCG on both sides: a domain of type qemu has nothing else.
  await using vm = await Vm.create({
    ...{ image: image.name, accel: 'tcg', machine: 'q35', network: 'isolated', signal },
  });
  await vm.commands.run(['true'], { signal });
  await vm.snapshots.create(SNAPSHOT, { signal });
  const info = await vm.info();
  const { memoryMib } = info;
  const boot = await store.bootFiles(image);
  await using domain = await Domain.start({ image, boot, memoryMib, qemuPath, signal });
  const series = await interleave(
    [
      {
        name: 'reset.savevm',
        unit: 'ms',
        sample: () => restoreOnce(vm, SNAPSHOT, signal),
      },
      { name: 'reset.virsh', unit: 'ms', sample: () => domain.revert(signal) },
    ],
    {
      runs,
      signal,
      onSample: (name, value, done, total) =>
        void process.stderr.write(`${done}/${total} ${name} ${value.toFixed(1)}\n`),
    },
  );
  const options = { runs, vm: {}, pool: {}, fork: {}, store, qemuPath, signal };
  const report = makeReport(begun, await subjectOf(info, options), series, [
    ['reset.virsh-to-savevm', 'reset.virsh', 'reset.savevm'],
  ]);
  if (json !== undefined) await writeFile(json, `${JSON.stringify(report, undefined, 2)}\n`);
  process.stdout.write(formatReport(report));
}

function parseRuns(text: string): number {
  const runs = Number(text);
  if (Number.isInteger(runs) && runs >= 1 && runs <= 1000) return runs;
  throw new InvalidArgumentError('give a whole number from 1 to 1000.');
}

await new Command('scripts/compare-libvirt')
  .description('A reset by snapshot to its first command, beside `virsh snapshot-revert`.')
  .option('--runs <n>', 'samples of each', parseRuns, 10)
  .option('--json <file>', 'write the report as JSON to a file')
  .action(compare)
  .parseAsync();
