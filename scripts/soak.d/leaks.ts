/** What a run has left in this process and around it. */
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { execa } from 'execa';
import type { StatePaths } from '../../src/vm/api.ts';

/** Bytes that the process may hold more than before: what V8 has not yet given back. */
const RESIDENT_BYTES = 96 * 2 ** 20;

interface Held {
  readonly descriptors: number;
  readonly residentBytes: number;
  /** QEMUs of this state directory. */
  readonly processes: number;
  /** Directories of VMs. */
  readonly vms: number;
  readonly sockets: number;
}

/** Takes stock; {@link leaks} compares. */
export async function takeStock(paths: StatePaths): Promise<Held> {
  const names = async (dir: string) =>
    (await readdir(dir).catch(() => [])).filter((name) => !name.startsWith('.')).length;
  const pattern = `qemu-system.*${join(paths.runtimeDir)}/`;
  const found = await execa('pgrep', ['--count', '--full', pattern], { reject: false });
  return {
    descriptors: (await readdir('/proc/self/fd')).length,
    residentBytes: process.memoryUsage().rss,
    processes: Number(found.stdout),
    vms: await names(join(paths.dataDir, 'vms')),
    sockets: await names(paths.runtimeDir),
  };
}

/** What there is more of than before; nothing, where all is well. */
export function leaks(before: Held, after: Held): string[] {
  const counted = ['descriptors', 'processes', 'vms', 'sockets'] as const;
  const grown = counted
    .filter((what) => after[what] > before[what])
    .map((what) => `${what}: ${before[what]} before, ${after[what]} after`);
  const more = after.residentBytes - before.residentBytes;
  return more > RESIDENT_BYTES
    ? [...grown, `memory: ${Math.round(more / 2 ** 20)} MiB more`]
    : grown;
}
