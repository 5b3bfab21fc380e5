/** What a run has left in this process and around it. */
import { readdir, readFile, readlink } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import type { StatePaths } from '../../src/vm/api.ts';

/** Bytes that the process may hold more than before: what V8 has not yet given back … */
const RESIDENT_BYTES = 96 * 2 ** 20;
/** … and what is alive in it after a garbage collection: compiled code, events that a test keeps. */
const LIVE_BYTES = 12 * 2 ** 20;
/** The kernel's clean-up of a killed QEMU may take a moment. */
const REAP_MS = 10_000;
const REAP_STEP_MS = 100;

/** What there is at one time. */
export interface Stock {
  /** Open in this process: what each leads to. */
  readonly descriptors: readonly string[];
  /** Of this state directory, by command line, and children of this process. */
  readonly processes: readonly string[];
  /** Files, directories and sockets of VMs, templates, checkpoints; locks and temporary files beside them. */
  readonly files: readonly string[];
  /** Unix sockets in the runtime directory that the kernel knows of. */
  readonly sockets: readonly string[];
  readonly residentBytes: number;
  readonly liveBytes: number;
}

/** Takes stock; {@link leaks} compares. */
export async function takeStock(paths: StatePaths): Promise<Stock> {
  collectGarbage();
  const { heapUsed, external, rss } = process.memoryUsage();
  return {
    descriptors: await descriptors(),
    processes: await processes(paths),
    files: await files(paths),
    sockets: await sockets(paths),
    residentBytes: rss,
    liveBytes: heapUsed + external,
  };
}

/** What there is more of than before; nothing, where all is well. */
export function leaks(before: Stock, after: Stock): string[] {
  const counted = ['descriptors', 'processes', 'files', 'sockets'] as const;
  const grown = counted.flatMap((what) => {
    const more = added(before[what], after[what]);
    return more.length === 0
      ? []
      : [`${what}: ${more.length} more (${more.slice(0, 5).join(', ')})`];
  });
  const bytes = [
    { what: 'resident', limit: RESIDENT_BYTES, more: after.residentBytes - before.residentBytes },
    { what: 'alive', limit: LIVE_BYTES, more: after.liveBytes - before.liveBytes },
  ];
  const swollen = bytes
    .filter(({ more, limit }) => more > limit)
    .map(({ what, more }) => `memory: ${mib(more)} MiB more ${what}`);
  return [...grown, ...swollen];
}

/** As {@link leaks} of now, where what is still on its way out has a moment to go. */
export async function leftSince(before: Stock, paths: StatePaths): Promise<string[]> {
  const deadline = performance.now() + REAP_MS;
  for (;;) {
    const left = leaks(before, await takeStock(paths));
    if (left.length === 0 || performance.now() > deadline) return left;
    await delay(REAP_STEP_MS);
  }
}

/** For progress lines and reports. */
export function describeStock(stock: Stock): string {
  const { descriptors: fds, processes: all, liveBytes, residentBytes } = stock;
  const memory = `${mib(liveBytes)} MiB alive, ${mib(residentBytes)} MiB resident`;
  return `${fds.length} descriptors, ${all.length} processes, ${stock.files.length} files, ${memory}`;
}

function mib(bytes: number): string {
  return (bytes / 2 ** 20).toFixed(1);
}

/** What is in the second list and not, or less often, in the first. */
function added(before: readonly string[], after: readonly string[]): string[] {
  const left = [...before];
  return after.filter((one) => {
    const at = left.indexOf(one);
    if (at === -1) return true;
    left.splice(at, 1);
    return false;
  });
}

function collectGarbage(): void {
  setFlagsFromString('--expose-gc');
  (runInNewContext('gc') as () => void)();
}

/** By what they lead to, without the numbers that each pipe and socket has for itself. */
async function descriptors(): Promise<string[]> {
  const all = await readdir('/proc/self/fd');
  const targets = await Promise.all(
    all.map((fd) => readlink(`/proc/self/fd/${fd}`).catch(() => undefined)), // the directory read here
  );
  return targets
    .filter((target) => target !== undefined)
    .map((target) => target.replace(/:\[\d+\]$/, ''))
    .sort();
}

async function processes(paths: StatePaths): Promise<string[]> {
  const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name));
  const found = await Promise.all(
    pids.map(async (pid) => {
      const read = (name: string) => readFile(`/proc/${pid}/${name}`, 'utf8').catch(() => '');
      const [cmdline, stat] = await Promise.all([read('cmdline'), read('stat')]);
      // proc(5): the name is in parentheses and may hold anything; after it come state and parent.
      const parent = Number(stat.slice(stat.lastIndexOf(')')).split(' ')[2]);
      const words = cmdline.replaceAll('\0', ' ');
      const isOurs = [paths.dataDir, paths.runtimeDir].some((dir) => words.includes(`${dir}/`));
      return isOurs || parent === process.pid ? `${pid} ${words.slice(0, 80)}` : undefined;
    }),
  );
  return found.filter((line) => line !== undefined).sort();
}

async function files(paths: StatePaths): Promise<string[]> {
  const { dataDir, runtimeDir, cacheDir } = paths;
  const whole = [
    runtimeDir,
    ...['vms', 'templates', 'checkpoints'].map((name) => join(dataDir, name)),
  ];
  const lists = await Promise.all([
    ...whole.map((dir) => namesIn(dir, true)),
    ...[dataDir, cacheDir, join(cacheDir, 'locks')].map((dir) => namesIn(dir, false)),
  ]);
  return lists.flat().sort();
}

async function namesIn(dir: string, recursive: boolean): Promise<string[]> {
  const names = await readdir(dir, { recursive }).catch(() => []); // not made yet
  return names.map((name) => join(dir, name));
}

async function sockets({ runtimeDir }: StatePaths): Promise<string[]> {
  const text = await readFile('/proc/net/unix', 'utf8');
  return text
    .split('\n')
    .map((line) => line.trim().split(/\s+/)[7] ?? '')
    .filter((path) => path.startsWith(`${runtimeDir}/`))
    .sort();
}
