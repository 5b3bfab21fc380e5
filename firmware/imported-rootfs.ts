/** Makes a bootable root file system of a foreign one, which comes as a tar archive that we wrote. */
import { chmod, copyFile, mkdir, readFile } from 'node:fs/promises';
import path from 'node:path';
import { assetPath } from './assets.ts';
import type { BootKit } from './boot-kit.ts';
import { runBuildCommand, type BuildLog } from './build-process.ts';
import { STEP_MARK, UNSHARE_HELPER, type BuildMode } from './mmdebstrap.ts';
import type { NodeKit } from './node-kit.ts';
import { createSparse, stagePrepare, type Rootfs } from './rootfs.ts';

/** One import of a root file system. */
export interface ImportedRootfsOptions {
  /** The files, as `src/image/import/merge.ts` writes them. */
  readonly tar: AsyncIterable<Buffer>;
  readonly kit: BootKit;
  readonly node: NodeKit;
  readonly mode: BuildMode;
  readonly hostname: string;
  readonly environment: Readonly<Record<string, string>>;
  readonly user: string;
  readonly workdir: string | undefined;
  readonly virtualBytes: number;
  /** An empty directory for all that is temporary. */
  readonly workDir: string;
  readonly log: BuildLog;
  readonly signal?: AbortSignal | undefined;
  readonly onStep?: ((step: string) => void) | undefined;
}

/** Steps of {@link importRootfs} in order. */
export const IMPORT_ROOTFS_STEPS: readonly string[] = ['unpack', 'system files', 'file system'];

/**
 * Unpacks and prepares.
 * @throws {ImageError} ERR_IMAGE_IMPORT naming the step; or what reading `tar` throws
 */
export async function importRootfs(options: ImportedRootfsOptions): Promise<Rootfs> {
  const { workDir, mode } = options;
  const stage = path.join(workDir, 'stage');
  await stagePrepare(stage, options);
  for (const hook of ['import', 'make-filesystem']) {
    await copyFile(assetPath(`hooks/${hook}`), path.join(workDir, hook));
    await chmod(path.join(workDir, hook), 0o755);
  }
  const rawPath = path.join(workDir, 'rootfs.raw');
  const out = path.join(workDir, 'out');
  await createSparse(rawPath, options.virtualBytes);
  await mkdir(out);
  if (mode === 'unshare') {
    await Promise.all([chmod(workDir, 0o777), chmod(out, 0o777), chmod(rawPath, 0o666)]);
  }
  await runBuildCommand({
    step: 'unpack',
    argv: [...(mode === 'unshare' ? UNSHARE_HELPER : []), path.join(workDir, 'import'), workDir],
    input: options.tar,
    isolate: mode === 'root',
    errorCode: 'ERR_IMAGE_IMPORT',
    log: options.log,
    signal: options.signal,
    onLine: (line) => {
      if (!line.startsWith(STEP_MARK)) return undefined;
      const step = line.slice(STEP_MARK.length);
      options.onStep?.(step);
      return step;
    },
  });
  const packages = (await readFile(path.join(out, 'packages'), 'utf8')).trim();
  return { rawPath, packages: packages === '' ? [] : packages.split('\n').sort() };
}
