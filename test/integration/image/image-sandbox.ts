/** Image stores of a test's own, on the host's cache of kernels; what a build must not leave. */
import { readdir, readFile } from 'node:fs/promises';
import path from 'node:path';
import { expect } from 'vitest';
import { detectBuildMode } from '../../../firmware/mmdebstrap.ts';
import { resolvePaths } from '../../../src/config/paths.ts';
import { ImageStore } from '../../../src/image/index.ts';
import { SCALE } from '../../scale.ts';
import { sandbox, type Sandbox } from '../cli/command.ts';

/** A sandbox with a store in it. Kernels and Node come from the host's cache, or go there. */
export interface ImageSandbox extends Sandbox {
  readonly store: ImageStore;
  /** The same directory, where these VMs stand on every image. */
  readonly openStore: (o: { inUseBy: readonly string[] }) => ImageStore;
}

export async function imageSandbox(): Promise<ImageSandbox> {
  const box = await sandbox();
  const { cacheDir } = resolvePaths();
  const openStore = ({ inUseBy }: { inUseBy: readonly string[] }): ImageStore =>
    new ImageStore({
      imagesDir: path.join(box.dir, 'data/images'),
      cacheDir,
      inUseBy: () => Promise.resolve(inUseBy),
    });
  return {
    dir: box.dir,
    env: { ...box.env, QMP_AGENT_STATE_CACHE_DIR: cacheDir },
    store: openStore({ inUseBy: [] }),
    openStore,
    [Symbol.asyncDispose]: () => box[Symbol.asyncDispose](),
  };
}

/** Why images cannot be made here; undefined where they can. */
export async function buildObstacle(): Promise<string | undefined> {
  return detectBuildMode().then(
    () => undefined,
    (error: Error) => `images cannot be made here: ${error.message}`,
  );
}

/** Nothing of builds and imports is left but images: no process, no temporary directory, no mount. */
export async function expectNoTraces(box: ImageSandbox, images: readonly string[]): Promise<void> {
  await expect.poll(() => processesIn(box.dir), { timeout: 10_000 * SCALE }).toEqual([]);
  expect(await readFile('/proc/self/mountinfo', 'utf8')).not.toContain(box.dir);
  const root = path.join(box.dir, 'data/images');
  const found = (await readdir(root).catch(() => [])).filter((name) => name !== '.locks');
  const versions: string[] = [];
  for (const name of found) {
    const entries = await readdir(path.join(root, name));
    if (entries.length === 0) continue; // a killed first build's directory
    versions.push(name);
    expect(entries.filter((entry) => !/^(current|[0-9a-f]{12}-[0-9a-f]{4})$/.test(entry))).toEqual(
      [],
    );
  }
  expect(versions.sort()).toEqual([...images].sort());
}

async function processesIn(dir: string): Promise<string[]> {
  const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name));
  const lines = await Promise.all(
    pids.map((pid) => readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '')),
  );
  return lines.map((line) => line.replaceAll('\0', ' ')).filter((line) => line.includes(dir));
}
