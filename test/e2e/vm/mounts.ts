/** Small file systems, for faults that a directory cannot be made to show. */
import { statfsSync } from 'node:fs';
import { mkdir, readFile, rm, statfs, writeFile } from 'node:fs/promises';
import { execa, execaSync } from 'execa';

/** A tmpfs of its own; unmounted at the end. */
export interface SmallFilesystem extends AsyncDisposable {
  readonly dir: string;
  /** Fills it to the last block. */
  fill(): Promise<void>;
  /** Takes away all the space that is free, at one stroke; {@link remount} brings it back. */
  shrinkSync(): void;
  /** Takes away what {@link fill} wrote, where it did. */
  free(): Promise<void>;
  /** Mounts it anew with these options, e.g. `ro` or `size=1g`. */
  remount(options: string): Promise<void>;
}

/** Why none can be mounted here; undefined where they can. */
export function mountObstacle(): string | undefined {
  return process.getuid?.() === 0 ? undefined : 'only root may mount a file system';
}

/** Mounts a tmpfs of this size (`64k`, `100m`) on `dir`, which is created. */
export async function mountSmall(dir: string, size: string): Promise<SmallFilesystem> {
  await mkdir(dir, { recursive: true });
  await execa('mount', ['-t', 'tmpfs', '-o', `size=${size}`, 'qmp-agent-test', dir]);
  const ballast = `${dir}/ballast`;
  return {
    dir,
    fill: async () => {
      const { bavail, bsize } = await statfs(dir);
      await writeFile(ballast, Buffer.alloc(bavail * bsize)).catch(
        (error: NodeJS.ErrnoException) => {
          if (error.code !== 'ENOSPC') throw error; // a guest wrote meanwhile: full all the same
        },
      );
    },
    shrinkSync: () => {
      for (;;) {
        const { blocks, bfree, bsize } = statfsSync(dir);
        const options = `remount,size=${(blocks - bfree) * bsize}`;
        // It fails where a guest wrote in between.
        if (!execaSync('mount', ['-o', options, dir], { reject: false }).failed) return;
      }
    },
    free: () => rm(ballast, { force: true }),
    remount: async (options) => {
      await execa('mount', ['-o', `remount,${options}`, dir]);
    },
    [Symbol.asyncDispose]: async () => {
      if ((await readFile('/proc/mounts', 'utf8')).includes(` ${dir} `))
        await execa('umount', [dir]);
      await rm(dir, { recursive: true, force: true });
    },
  };
}
