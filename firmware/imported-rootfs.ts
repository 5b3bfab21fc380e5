/** Makes a bootable root file system of a foreign one, which comes as a tar archive that we wrote. */
import { chmod, copyFile, readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { assetPath } from './assets.ts';
import type { BootKit } from './boot-kit.ts';
import { runBuildCommand, type BuildLog } from './build-process.ts';
import {
  hookOutput,
  openToHooks,
  STEP_MARK,
  UNSHARE_HELPER,
  type BuildMode,
} from './mmdebstrap.ts';
import type { NodeKit } from './node-kit.ts';
import { stagePrepare, type Rootfs } from './rootfs.ts';

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
  await writeFile(path.join(workDir, 'size'), String(options.virtualBytes));
  await openToHooks(workDir, mode);
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
  const out = hookOutput(workDir);
  const packages = (await readFile(path.join(out, 'packages'), 'utf8')).trim();
  const rawPath = path.join(out, 'rootfs.raw');
  return { rawPath, packages: packages === '' ? [] : packages.split('\n').sort() };
}
