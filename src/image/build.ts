/** Builds an image of a recipe. */
import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { ensureBootKit, KIT_SCHEMA } from '../../firmware/boot-kit.ts';
import {
  privateWords,
  readHostSettings,
  readLocalCertificates,
  type HostSettings,
} from '../../firmware/host-apt.ts';
import type { KitOptions } from '../../firmware/kit-cache.ts';
import { removeTree, type BuildMode } from '../../firmware/mmdebstrap.ts';
import { ensureNodeKit, hasOwnNode } from '../../firmware/node-kit.ts';
import { recipeHash, type Recipe } from '../../firmware/recipe.ts';
import { buildRootfs, ROOTFS_STEPS, type Kits } from '../../firmware/rootfs.ts';
import { ConfigError } from '../errors.ts';
import { publishImage, PUBLISH_STEPS } from './publish.ts';
import { SnapshotNode } from './snapshot-node.ts';
import type { StepReporter } from './progress.ts';
import type { Image } from './types.ts';
import { withLock } from '../with-lock.ts';
import type { StorePaths, Workshop } from './workshop.ts';

/** Raised when a build of the same recipe would yield something else. */
const BUILDER_VERSION = '1';

/** Steps of a build, in order. */
export function buildSteps(): readonly string[] {
  return ['kernel', 'node', ...ROOTFS_STEPS, ...PUBLISH_STEPS];
}

/** All that decides what a build yields. */
export interface BuildPlan {
  readonly recipe: Recipe;
  readonly files: readonly Buffer[];
  readonly hash: string;
}

/**
 * Reads what a recipe refers to and computes its hash.
 * @param baseDir directory that relative `from` paths start at. Default: the working directory.
 * @throws {ConfigError} a file of the recipe cannot be read
 */
export async function planBuild(recipe: Recipe, baseDir = process.cwd()): Promise<BuildPlan> {
  const files: Buffer[] = [];
  for (const [index, file] of recipe.files.entries()) {
    if (file.from === undefined) {
      files.push(Buffer.from(file.content ?? ''));
      continue;
    }
    const from = path.resolve(baseDir, file.from);
    files.push(
      await readFile(from).catch((cause: unknown) => {
        const field = `files[${index}].from`;
        const hint = `Correct ${field} in the recipe; it is relative to the recipe's own directory.`;
        throw new ConfigError(`recipe: cannot read ${from}`, {
          field,
          value: file.from,
          hint,
          cause,
        });
      }),
    );
  }
  const certificates = await readLocalCertificates();
  const hash = recipeHash(recipe, {
    builder: `${BUILDER_VERSION} ${KIT_SCHEMA}`,
    files: digest(files),
    certificates: digest([...certificates.values()]),
  });
  return { recipe, files, hash };
}

function digest(parts: readonly Buffer[]): string {
  const hash = createHash('sha256');
  for (const part of parts) hash.update(`${part.length}\n`).update(part);
  return hash.digest('hex');
}

/** A build's surroundings. */
export interface BuildContext {
  readonly paths: StorePaths;
  readonly workshop: Workshop;
  readonly mode: BuildMode;
  readonly signal?: AbortSignal | undefined;
  readonly reporter: StepReporter;
}

/** Builds and publishes. The image's lock must be held. */
export async function buildImage(
  plan: BuildPlan,
  context: BuildContext,
  refresh: boolean,
): Promise<Image> {
  const { recipe, files } = plan;
  const { workshop, mode, signal, reporter } = context;
  const onStep = (step: string): void => reporter.begin(step);
  const host = await readHostSettings();
  workshop.log.hide(privateWords(host));
  const kits = ensureKits(plan.recipe, context, host, refresh);
  kits.catch(() => undefined); // looked at later
  const common = { workDir: workshop.workDir, log: workshop.log, signal, onStep };
  await using snapshots = SnapshotNode.fetch(recipe, kits, (again, until) =>
    lockedKit('node', ensureNodeKit, { ...context, signal: until }, host, again || refresh),
  );
  const rootfs = await buildRootfs({ ...common, kits, recipe, files, mode, host });
  const { kit, node } = await kits;
  const removal = removeTree(rootfs.trash).catch(() => undefined); // goes with the workshop, else
  const facts = {
    name: recipe.name,
    origin: 'build',
    recipeHash: plan.hash,
    suite: recipe.suite,
    packages: rootfs.packages,
    environment: recipe.environment,
    user: 'agent',
    node: node === undefined ? 'image' : 'bundled',
  } as const;
  const { imageDir } = workshop;
  const { rawPath } = rootfs;
  const virtualBytes = recipe.sizeMib * 1024 * 1024;
  try {
    await snapshots.settle(facts, workshop.log);
    return await publishImage({ ...common, kit, imageDir, rawPath, virtualBytes, facts });
  } finally {
    await removal;
  }
}

async function ensureKits(
  recipe: Recipe,
  context: BuildContext,
  host: HostSettings,
  refresh: boolean,
): Promise<Kits> {
  const kit = await lockedKit('kernel', ensureBootKit, context, host, refresh);
  if (hasOwnNode(recipe)) return { kit, node: undefined };
  return { kit, node: await lockedKit('node', ensureNodeKit, context, host, refresh) };
}

/** A kit, made by one process at a time. */
export async function lockedKit<K>(
  step: 'kernel' | 'node',
  ensure: (options: KitOptions) => Promise<K>,
  context: BuildContext,
  host: HostSettings,
  refresh = false,
): Promise<K> {
  const { paths, workshop, mode, signal, reporter } = context;
  reporter.begin(step);
  const lock = path.join(paths.cacheDir, 'locks', step);
  const { log } = workshop;
  return withLock(lock, signal, () =>
    ensure({ cacheDir: paths.cacheDir, mode, host, log, signal, refresh }),
  );
}
