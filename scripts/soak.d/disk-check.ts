/** Whether a VM's disk is sound: the qcow2 by `qemu-img check`, the file system in it by `e2fsck`. */
import { mkdtemp, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { execa } from 'execa';
import type { StatePaths } from '../../src/vm/api.ts';
import { vmPaths } from '../../src/vm/vm-paths.ts';

/** A gigabyte on a slow disk. */
const CHECK_MS = 120_000;
/**
 * What `e2fsck -p` may say of a disk that was in use: the journal is replayed, files that were open and had
 * no name any more are cleared. All else is damage.
 */
const HARMLESS = [
  /recovering journal$/,
  /Clearing orphaned inode \d+ \(uid=/,
  /clean, /,
  /\d+\/\d+ files \(.*\), \d+\/\d+ blocks$/,
];

/**
 * Checks the disk of a VM that is stopped, or stands still.
 * @returns what is wrong with it; nothing, where all is well
 */
export async function checkDisk(
  vmId: string,
  paths: StatePaths,
  o: { inUse: boolean; signal?: AbortSignal | undefined },
): Promise<string[]> {
  const { diskPath } = vmPaths(paths, vmId);
  const tool = (file: string, args: readonly string[]) =>
    execa(file, args, {
      ...{ reject: false, all: true, timeout: CHECK_MS, env: { LC_ALL: 'C' } },
      ...(o.signal && { cancelSignal: o.signal }),
    });
  const share = o.inUse ? ['-U'] : [];
  const dir = await mkdtemp(join(paths.dataDir, '.soak-'));
  try {
    const image = join(dir, 'disk.raw');
    const layers = await tool('qemu-img', ['check', ...share, diskPath]);
    const copy = await tool('qemu-img', ['convert', ...share, '-O', 'raw', diskPath, image]);
    if (copy.exitCode !== 0) return [`qemu-img convert: ${copy.all}`];
    const noted = await tool('dumpe2fs', ['-h', image]);
    const mended = await tool('e2fsck', ['-f', '-p', image]);
    const sound = await tool('e2fsck', ['-f', '-n', image]);
    return [
      ...(layers.exitCode === 0 ? [] : [`qemu-img check: ${layers.all}`]),
      ...(/^(Filesystem state:.*error|FS Error count:.*)$/m.exec(noted.stdout) ?? [])
        .slice(0, 1)
        .map((line) => `the kernel noted an error: ${line}`),
      ...damageIn(mended.stdout).map((line) => `e2fsck -p: ${line}`),
      ...((mended.exitCode ?? 8) > 1 ? [`e2fsck -p ended with ${mended.exitCode}`] : []),
      ...(sound.exitCode === 0 ? [] : [`e2fsck -n: ${sound.all}`]),
    ];
  } finally {
    await rm(dir, { recursive: true, force: true });
  }
}

function damageIn(said: string): string[] {
  return said
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => line !== '' && !HARMLESS.some((pattern) => pattern.test(line)));
}
