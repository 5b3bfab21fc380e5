/**
 * Kits: parts that images are made with, got from Debian's signed packages and kept in the cache, so
 * that only the first image waits for them. A kit is made in a temporary directory and renamed.
 */
import { randomBytes } from 'node:crypto';
import {
  chmod,
  copyFile,
  mkdir,
  readdir,
  readFile,
  rename,
  rm,
  stat,
  utimes,
  writeFile,
} from 'node:fs/promises';
import path from 'node:path';
import { ImageError } from '../src/errors.ts';
import { assetPath } from './assets.ts';
import { runBuildCommand, type BuildLog } from './build-process.ts';
import type { HostSettings } from './host-apt.ts';
import { hookOutput, removeTree, runMmdebstrap, type BuildMode } from './mmdebstrap.ts';

/** What making a kit needs. */
export interface KitOptions {
  readonly cacheDir: string;
  readonly mode: BuildMode;
  readonly host: HostSettings;
  readonly log: BuildLog;
  readonly signal?: AbortSignal | undefined;
  readonly onStep?: ((step: string) => void) | undefined;
  /** Ask the archive for newer packages even where the cached kit is young. Default false. */
  readonly refresh?: boolean | undefined;
}

/** One kind of kit. `K` is what `kit.json` says. */
export interface KitKind<K extends { readonly schema: number }> {
  /** Directory in the cache, and the step that errors name. */
  readonly name: string;
  readonly step: string;
  /** Value of `schema` in `kit.json`; kits of another are made anew. */
  readonly schema: number;
  /** Lines for `hooks/fetch-packages`: these packages alone … */
  readonly packages: readonly string[];
  /** … and these with all that they depend on. */
  readonly closures: readonly string[];
  /** Fills `out`; the packages are in `debs` and `closure`. Returns the version and the facts. */
  readonly assemble: (
    dirs: {
      readonly debs: string;
      readonly closure: string;
      readonly work: string;
      readonly out: string;
    },
    options: KitOptions,
  ) => Promise<{ readonly version: string; readonly facts: K }>;
}

/** A kit in the cache. */
export interface CachedKit<K> {
  readonly dir: string;
  readonly facts: K;
}

/** A kit is used for so long before the archive is asked for newer packages. */
const KIT_MAX_AGE_MS = 30 * 24 * 3600 * 1000;
/** Kits are Debian 13's whatever the image's suite: one kernel, one set of facts. */
export const KIT_SUITE = 'trixie';
const FACTS = 'kit.json';

/**
 * The kit in the cache, made or renewed where needed. Call it under a lock: two makers at once do
 * the work twice (and end with the same result).
 * @throws {ImageError} a package cannot be had or is not what it should be
 */
export async function ensureKit<K extends { readonly schema: number }>(
  kind: KitKind<K>,
  options: KitOptions,
): Promise<CachedKit<K>> {
  const kitsDir = path.join(options.cacheDir, kind.name);
  const current = await newestKit(kind, kitsDir);
  if (current !== undefined && options.refresh !== true) {
    if (Date.now() - current.mtimeMs < KIT_MAX_AGE_MS) return current;
  }
  try {
    return await makeKit(kind, kitsDir, options);
  } catch (error) {
    options.signal?.throwIfAborted();
    if (current === undefined || options.refresh === true) throw error;
    options.log.line(`# no newer ${kind.step} to be had; the cached one is used`);
    return current;
  }
}

/** A kit that is in the cache already: of this version, else the newest. */
export async function cachedKit<K extends { readonly schema: number }>(
  kind: KitKind<K>,
  cacheDir: string,
  version?: string,
): Promise<CachedKit<K> | undefined> {
  const kitsDir = path.join(cacheDir, kind.name);
  if (version === undefined) return newestKit(kind, kitsDir);
  return readKit(kind, kitDir(kind, kitsDir, version));
}

function kitDir(kind: { readonly schema: number }, kitsDir: string, version: string): string {
  return path.join(kitsDir, `${version}-${kind.schema}`);
}

async function newestKit<K extends { readonly schema: number }>(
  kind: KitKind<K>,
  kitsDir: string,
): Promise<(CachedKit<K> & { mtimeMs: number }) | undefined> {
  const names = await readdir(kitsDir).catch(() => []);
  let newest: (CachedKit<K> & { mtimeMs: number }) | undefined;
  for (const name of names.filter((entry) => !entry.startsWith('.'))) {
    const kit = await readKit(kind, path.join(kitsDir, name));
    if (kit === undefined) continue;
    const { mtimeMs } = await stat(path.join(kit.dir, FACTS));
    if (newest === undefined || mtimeMs > newest.mtimeMs) newest = { ...kit, mtimeMs };
  }
  return newest;
}

async function readKit<K extends { readonly schema: number }>(
  kind: KitKind<K>,
  dir: string,
): Promise<CachedKit<K> | undefined> {
  const text = await readFile(path.join(dir, FACTS), 'utf8').catch(() => '');
  if (text === '') return undefined;
  const facts = JSON.parse(text) as K;
  return facts.schema === kind.schema ? { dir, facts } : undefined;
}

async function makeKit<K extends { readonly schema: number }>(
  kind: KitKind<K>,
  kitsDir: string,
  options: KitOptions,
): Promise<CachedKit<K>> {
  const work = path.join(kitsDir, `.tmp-${process.pid}-${randomBytes(4).toString('hex')}`);
  const out = path.join(work, 'out');
  await removeStaleWork(kitsDir, options);
  await mkdir(work, { recursive: true });
  try {
    await fetchPackages(kind, work, options);
    options.onStep?.(kind.step);
    await mkdir(out);
    const fetched = hookOutput(work);
    const [debs, closure] = [path.join(fetched, 'debs'), path.join(fetched, 'closure')];
    const { version, facts } = await kind.assemble({ debs, closure, work, out }, options);
    await writeFile(path.join(out, FACTS), JSON.stringify(facts));
    const target = kitDir(kind, kitsDir, version);
    const now = new Date();
    await utimes(path.join(out, FACTS), now, now);
    await rm(target, { recursive: true, force: true });
    await rename(out, target);
    return { dir: target, facts };
  } finally {
    await removeTree(work);
  }
}

async function fetchPackages(
  kind: Pick<KitKind<never>, 'packages' | 'closures'>,
  work: string,
  options: KitOptions,
): Promise<void> {
  const hook = path.join(work, 'fetch-packages');
  await copyFile(assetPath('hooks/fetch-packages'), hook);
  await chmod(hook, 0o755);
  await writeFile(path.join(work, 'packages'), kind.packages.map((name) => `${name}\n`).join(''));
  await writeFile(path.join(work, 'closures'), kind.closures.map((name) => `${name}\n`).join(''));
  await runMmdebstrap({
    ...options,
    suite: KIT_SUITE,
    variant: 'custom',
    customizeHooks: [hook],
    workDir: work,
  });
}

async function removeStaleWork(kitsDir: string, options: KitOptions): Promise<void> {
  const names = await readdir(kitsDir).catch(() => []);
  for (const name of names.filter((entry) => entry.startsWith('.tmp-'))) {
    options.log.line(`# left by a killed build: ${name}`);
    await removeTree(path.join(kitsDir, name));
  }
}

/** Unpacks every package in a directory into a tree, without running anything of theirs. */
export async function extractDebs(from: string, to: string, options: KitOptions): Promise<void> {
  await mkdir(to, { recursive: true });
  for (const name of (await readdir(from)).filter((entry) => entry.endsWith('.deb'))) {
    await runBuildCommand({
      step: 'extract',
      argv: ['dpkg-deb', '--extract', path.join(from, name), to],
      log: options.log,
      signal: options.signal,
    });
  }
}

/** The first of these paths that is there. @throws {ImageError} none is */
export async function firstExisting(step: string, paths: readonly string[]): Promise<string> {
  for (const candidate of paths) {
    const found = await stat(candidate).then(
      () => true,
      () => false,
    );
    if (found) return candidate;
  }
  const names = paths.map((entry) => path.basename(entry)).join(', ');
  throw brokenKit(step, `none of ${names} in the packages`);
}

/** Packages that do not hold what they should. */
export function brokenKit(step: string, why: string): ImageError {
  return new ImageError('ERR_IMAGE_BUILD', `${step}: ${why}`, {
    step,
    hint: 'Try again; where it stays so, remove the cache directory and report it.',
  });
}
