/** A VM under heavy writes, put back to a snapshot again and again: its disk stays whole. */
import { readFile } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import type { StatePaths } from '../../src/vm/api.ts';
import type { Vm } from '../../src/vm/index.ts';
import type { SoakOptions } from './at-once.ts';
import { checkDisk } from './disk-check.ts';

/** As in `writers.py`. */
const WRITERS = ['fsync', 'rename', 'mmap', 'tree', 'bulk'] as const;
const SCRIPT = '/var/tmp/soak/writers.py';
/** A new snapshot is taken, in the midst of the writes, and the old one deleted after so many resets … */
const RETAKE = 10;
/** … and the disk is looked at after so many. */
const CHECK = 40;
/** Python starts slowly under emulation; how long the writers have until all of them write, ms. */
const START_MS = 60_000;
/** Time to write between two resets, ms: some are put back in the midst of their first write. */
const WRITE_MS = [0, 300, 1_500] as const;

/** What a run of resets has shown. */
export interface ResetReport {
  readonly resets: number;
  /** Times that the disk was looked at. */
  readonly checks: number;
  /** ms from the call to its end, each. */
  readonly restoreMs: readonly number[];
  /** Nothing, where all is well. */
  readonly faults: readonly string[];
}

/**
 * @param vm that belongs to nobody else, and is persistent; it is stopped at the end
 * @throws whatever `vm.snapshots` and `vm.commands.run` throw
 */
export async function soakResets(
  vm: Vm,
  o: SoakOptions & { paths: StatePaths },
): Promise<ResetReport> {
  const { paths, signal } = o;
  const faults: string[] = [];
  const restoreMs: number[] = [];
  let checks = 0;
  const check = async (when: string, inUse: boolean): Promise<void> => {
    checks += 1;
    const found = await checkDisk(vm.id, paths, { inUse, signal });
    faults.push(...found.map((what) => `${when}: ${what}`));
  };
  await startWriters(vm, signal);
  let name = 'writing-0';
  await vm.snapshots.create(name, { signal });
  for (let reset = 1; reset <= o.count && faults.length === 0; reset += 1) {
    if (o.enough?.aborted === true) break;
    const startedAt = performance.now();
    await vm.snapshots.restore(name, { signal });
    restoreMs.push(performance.now() - startedAt);
    await delay(WRITE_MS[reset % WRITE_MS.length], undefined, { signal });
    faults.push(...(await look(vm, signal)).map((what) => `reset ${reset}: ${what}`));
    if (reset % RETAKE === 0) {
      const old = name;
      name = `writing-${reset}`;
      await vm.snapshots.create(name, { signal });
      await vm.snapshots.delete(old, { signal });
    }
    if (reset % CHECK === 0) {
      await vm.pause({ signal });
      await check(`reset ${reset}`, true);
      await vm.resume({ signal });
    }
    o.onDone?.(reset);
  }
  const { stdout } = await vm.commands.run(
    'dmesg | grep -iE "EXT4-fs (error|warning)|I/O error"; true',
    {
      ...{ user: 'root', signal },
    },
  );
  if (stdout !== '') faults.push(`the guest's kernel: ${stdout.trim()}`);
  await vm.stop({ signal });
  await check('at the end', false);
  return { resets: restoreMs.length, checks, restoreMs, faults };
}

async function startWriters(vm: Vm, signal: AbortSignal | undefined): Promise<void> {
  const script = await readFile(new URL('writers.py', import.meta.url));
  await vm.commands.run(`mkdir -p ${SCRIPT.replace(/\/[^/]*$/, '')}; cat > ${SCRIPT}`, {
    ...{ stdin: script, signal },
  });
  for (const kind of WRITERS) {
    const argv = ['python3', SCRIPT, kind, `/var/tmp/soak/${kind}`];
    const writer = await vm.commands.run(argv, { background: true, timeoutMs: 0, signal });
    await writer.disconnect();
  }
  const deadline = performance.now() + START_MS;
  for (;;) {
    const { stdout } = await vm.commands.run('ls /dev/shm', { signal });
    if (WRITERS.every((kind) => stdout.includes(`count-${kind}`))) return;
    if (performance.now() > deadline) throw new Error(`not all writers write: ${stdout}`);
    await delay(500, undefined, { signal });
  }
}

/** What the writers have to say, and whether all of them run. */
async function look(vm: Vm, signal: AbortSignal | undefined): Promise<string[]> {
  const { stdout } = await vm.commands.run(['sh', '-c', 'cat /dev/shm/bad-* 2>/dev/null; true'], {
    signal,
  });
  const running = (await vm.commands.list({ signal })).filter(({ args }) => args.includes(SCRIPT));
  const missing = WRITERS.filter((kind) => !running.some(({ args }) => args.includes(kind)));
  return [
    ...stdout.split('\n').filter(Boolean),
    ...missing.map((kind) => `the writer ${kind} has ended`),
  ];
}
