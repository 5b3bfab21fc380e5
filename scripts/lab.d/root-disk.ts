/** The lab's root disk, kernel and initramfs: Debian 13 by mmdebstrap, cached by its recipe. */
import { access, chmod, copyFile, mkdir, mkdtemp, readFile, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { BuildLog } from '../../firmware/build-process.ts';
import { readHostSettings } from '../../firmware/host-apt.ts';
import { detectBuildMode, runMmdebstrap } from '../../firmware/mmdebstrap.ts';
import { hashFiles } from './cache.ts';

/** What a lab boots. */
export interface RootDisk {
  kernelPath: string;
  initramfsPath: string;
  /** Raw ext4. */
  diskPath: string;
}

const GUEST = join(import.meta.dirname, 'guest');
const RECIPE = ['packages', 'make-disk', 'init'].map((name) => join(GUEST, name));
const SUITE = 'trixie';
/** Manuals and translations: half of the files of a small Debian, and nobody reads them here. */
const LEFT_OUT = ['doc', 'man', 'info', 'locale', 'lintian', 'bug'].map(
  (name) => `path-exclude=/usr/share/${name}/*`,
);

/**
 * Builds the disk where the cache lacks it.
 *
 * @throws ImageError naming the step and the log, HostError naming what this machine lacks
 */
export async function rootDisk(
  cache: string,
  o: { force?: boolean; signal?: AbortSignal; onStep?: (step: string) => void } = {},
): Promise<RootDisk & { cached: boolean }> {
  const dir = join(cache, `root-${await hashFiles(RECIPE)}`);
  const paths = {
    kernelPath: join(dir, 'vmlinuz'),
    initramfsPath: join(dir, 'initramfs'),
    diskPath: join(dir, 'root.ext4'),
  };
  const there = await access(paths.diskPath).then(
    () => true,
    () => false,
  );
  if (there && o.force !== true) return { ...paths, cached: true };
  await mkdir(cache, { recursive: true });
  const work = await mkdtemp(join(cache, '.new-'));
  try {
    await build(work, o);
    await rm(dir, { recursive: true, force: true });
    // Two builds at once end with the disk of the one that came first.
    await rename(join(work, 'out'), dir).catch(async (error: unknown) => {
      await access(paths.diskPath).catch(() => {
        throw error;
      });
    });
  } finally {
    await rm(work, { recursive: true, force: true });
  }
  return { ...paths, cached: false };
}

async function build(
  work: string,
  o: { signal?: AbortSignal; onStep?: (step: string) => void },
): Promise<void> {
  const mode = await detectBuildMode();
  const out = join(work, 'out');
  await mkdir(out);
  if (mode === 'unshare') await chmod(out, 0o777);
  for (const name of ['make-disk', 'init']) await copyFile(join(GUEST, name), join(work, name));
  await chmod(join(work, 'make-disk'), 0o755);
  await using log = new BuildLog(join(work, 'build.log'));
  await runMmdebstrap({
    mode,
    suite: SUITE,
    variant: 'apt',
    packages: await packages(),
    dpkgOptions: LEFT_OUT,
    customizeHooks: [join(work, 'make-disk')],
    workDir: join(work, 'mmdebstrap'),
    host: await readHostSettings(),
    log,
    ...(o.signal === undefined ? {} : { signal: o.signal }),
    ...(o.onStep === undefined ? {} : { onStep: o.onStep }),
  });
}

async function packages(): Promise<string[]> {
  const text = await readFile(join(GUEST, 'packages'), 'utf8');
  return text.split('\n').filter((line) => line !== '' && !line.startsWith('#'));
}
