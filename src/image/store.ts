/** The images on this host. */
import { readdir, realpath, rm } from 'node:fs/promises';
import path from 'node:path';
import { detectBuildMode } from '../../firmware/mmdebstrap.ts';
import { IMAGE_NAME, parseRecipe, type Recipe, type RecipeInput } from '../../firmware/recipe.ts';
import { ConfigError, ImageError, NotFoundError } from '../errors.ts';
import { events } from '../events.ts';
import { makeBootFiles, type BootFilesOptions } from './boot-files.ts';
import { buildImage, buildSteps, planBuild, type BuildContext } from './build.ts';
import { importImage, IMPORT_STEPS } from './import/import-image.ts';
import { corrupt, openImage, verifyImage } from './manifest.ts';
import { StepReporter } from './progress.ts';
import { allVersions, CURRENT, oldVersions } from './publish.ts';
import type { BootFiles, Image, ImageProgress } from './types.ts';
import { inWorkshop, withImageLock, type StorePaths } from './workshop.ts';

/** Where a store keeps things. */
export interface ImageStoreOptions {
  /** `<data>/images`. */
  readonly imagesDir: string;
  /** `<data>/cache`: boot kits, initramfs. Can be removed at any time. */
  readonly cacheDir: string;
  /** Default: `logs` beside `imagesDir`. */
  readonly logsDir?: string | undefined;
  /**
   * Names of the VMs whose disks stand on files in this directory, given by its real path. Their
   * ground is never removed.
   * Default: nobody.
   */
  readonly inUseBy?: ((imageVersionDir: string) => Promise<readonly string[]>) | undefined;
}

/** Options of long work on an image. */
export interface ImageWorkOptions {
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: ((progress: ImageProgress) => void) | undefined;
}

/** Options of {@link ImageStore.build}. */
export interface ImageBuildOptions extends ImageWorkOptions {
  /** Build even where nothing changed, with the newest packages and kernel. Default false. */
  readonly force?: boolean | undefined;
  /** Directory that the recipe's `from` paths are relative to. Default: the working directory. */
  readonly baseDir?: string | undefined;
}

/** Options of {@link ImageStore.import}. */
export interface ImageImportOptions extends ImageWorkOptions {
  /** Name of the image. */
  readonly name: string;
}

/** One version of an image. */
export interface ImageVersion {
  readonly name: string;
  /** Its directory's name. */
  readonly version: string;
  readonly dir: string;
  /** New VMs stand on it. */
  readonly isCurrent: boolean;
  /** Who stands on it; see {@link ImageStoreOptions.inUseBy}. */
  readonly usedBy: readonly string[];
}

/** What {@link ImageStore.build} did. */
export interface ImageBuildResult {
  readonly image: Image;
  /** Nothing had changed, so nothing was done. */
  readonly cached: boolean;
  readonly durationMs: number;
}

/** The images on this host. Several processes may use one store at once. */
export class ImageStore {
  readonly #paths: StorePaths;
  readonly #inUseBy: (imageVersionDir: string) => Promise<readonly string[]>;

  constructor(options: ImageStoreOptions) {
    this.#paths = {
      imagesDir: options.imagesDir,
      cacheDir: options.cacheDir,
      logsDir: options.logsDir ?? path.join(path.dirname(options.imagesDir), 'logs'),
    };
    const { inUseBy } = options;
    // A VM knows its image by the real path (see `get`); where a link leads here, ours is another.
    this.#inUseBy = async (dir) => (await inUseBy?.(await realpath(dir).catch(() => dir))) ?? [];
  }

  /**
   * An image by name. Checks manifest and sizes, not contents: see {@link verify}.
   * @throws {NotFoundError} there is none
   * @throws {ImageError} ERR_IMAGE_CORRUPT
   */
  async get(name: string): Promise<Image> {
    const imageDir = this.#imageDir(name);
    const dir = await realpath(path.join(imageDir, CURRENT)).catch(() => undefined);
    if (dir !== undefined) return openImage(name, dir);
    if ((await oldVersions(imageDir)).length > 0)
      throw corrupt(name, 'its current version is gone');
    throw new NotFoundError(`no image "${name}"`, {
      kind: 'image',
      query: name,
      candidates: await this.#names(),
      hint: `Build it: qmp-agent image build ${name === 'base' ? '' : '-f RECIPE'}`.trim(),
    });
  }

  /** Images that can be used, by name. Broken ones are left out; {@link get} says what they lack. */
  async list(): Promise<Image[]> {
    const found = await Promise.all(
      (await this.#names()).map((name) => this.get(name).catch(() => undefined)),
    );
    return found.filter((image) => image !== undefined);
  }

  /**
   * Compares every file's checksum with the manifest; takes seconds.
   * @throws {ImageError} ERR_IMAGE_CORRUPT
   */
  async verify(name: string, options: { signal?: AbortSignal | undefined } = {}): Promise<Image> {
    const image = await this.get(name);
    await verifyImage(image, options.signal);
    return image;
  }

  /**
   * Builds a recipe, or finds that the image of the same recipe is there.
   * @throws {ConfigError} the recipe is wrong
   * @throws {ImageError} ERR_IMAGE_BUILD with the failing step and its log
   * @throws {HostError} the host lacks something, or space
   */
  async build(
    recipe: Recipe | RecipeInput,
    options: ImageBuildOptions = {},
  ): Promise<ImageBuildResult> {
    const startedAt = performance.now();
    const { force = false } = options;
    const plan = await planBuild(parseRecipe(recipe), options.baseDir);
    const { name } = plan.recipe;
    const isCurrent = async (): Promise<Image | undefined> => {
      const image = force ? undefined : await this.get(name).catch(() => undefined);
      return image?.manifest.recipeHash === plan.hash ? image : undefined;
    };
    const done = (image: Image, cached: boolean): ImageBuildResult => {
      const durationMs = Math.round(performance.now() - startedAt);
      events.emit('image.build.finished', { image: name, durationMs, cached });
      return { image, cached, durationMs };
    };
    const present = await isCurrent();
    if (present !== undefined) return done(present, true);
    return this.#make(name, 'build', buildSteps(), options, {
      made: async () => {
        const made = await isCurrent(); // by the one that we waited for
        return made === undefined ? undefined : done(made, true);
      },
      make: async (context) => done(await buildImage(plan, context, force), false),
    });
  }

  /**
   * Makes an image of a root filesystem (directory, tarball), an OCI layout (directory, archive), or
   * what `docker save` writes. An image of that name is replaced.
   * @throws {ImageError} ERR_IMAGE_IMPORT the source is not what it should be
   * @throws {HostError} the host lacks something, or space
   */
  async import(source: string, options: ImageImportOptions): Promise<Image> {
    const startedAt = performance.now();
    const { name } = options;
    this.#imageDir(name); // checks it
    return this.#make(name, 'import', IMPORT_STEPS, options, {
      make: async (context) => {
        const { image, format } = await importImage(name, source, context);
        const durationMs = Math.round(performance.now() - startedAt);
        events.emit('image.imported', { image: name, format, durationMs });
        return image;
      },
    });
  }

  /** Everything that builds and imports have in common around the work itself. */
  async #make<T>(
    name: string,
    verb: 'build' | 'import',
    steps: readonly string[],
    { signal, onProgress }: ImageWorkOptions,
    work: {
      /** Under the lock: what makes the work needless. */
      readonly made?: () => Promise<T | undefined>;
      readonly make: (context: BuildContext) => Promise<T>;
    },
  ): Promise<T> {
    const mode = await detectBuildMode();
    return withImageLock(this.#paths, name, signal, async () => {
      const made = await work.made?.();
      if (made !== undefined) return made;
      const reporter = new StepReporter(name, steps, onProgress);
      events.emit('image.build.started', { image: name, steps: steps.length });
      try {
        const result = await inWorkshop(this.#paths, name, verb, (workshop) =>
          work.make({ paths: this.#paths, workshop, mode, signal, reporter }),
        );
        await this.#removeOldVersions(name);
        return result;
      } catch (error) {
        const step = (error instanceof ImageError ? error.step : undefined) ?? reporter.current;
        const message = error instanceof Error ? error.message : String(error);
        events.emit('image.build.failed', { image: name, step, error: message });
        throw error;
      }
    });
  }

  /**
   * Kernel and initramfs to boot this image with. The initramfs carries the agent, and is made where
   * the cache does not have it.
   */
  async bootFiles(image: Image, o?: BootFilesOptions): Promise<BootFiles> {
    return makeBootFiles(image, this.#paths.cacheDir, o);
  }

  /**
   * Removes an image with all its versions, and what killed builds of it left.
   * @throws {NotFoundError} there is none
   * @throws {ImageError} ERR_IMAGE_IN_USE naming the VMs that stand on it
   */
  async remove(name: string, options: { signal?: AbortSignal | undefined } = {}): Promise<void> {
    const imageDir = this.#imageDir(name);
    await withImageLock(this.#paths, name, options.signal, async () => {
      if (!(await this.#names()).includes(name)) await this.get(name); // throws NotFoundError
      const entries = await readdir(imageDir);
      const users = new Set<string>();
      for (const entry of entries.filter((candidate) => candidate !== CURRENT)) {
        for (const user of await this.#inUseBy(path.join(imageDir, entry))) users.add(user);
      }
      if (users.size > 0) {
        throw new ImageError(
          'ERR_IMAGE_IN_USE',
          `image ${name} is in use by ${[...users].join(', ')}`,
          {
            hint: `Remove these VMs first: qmp-agent remove ${[...users].join(' ')}`,
          },
        );
      }
      await rm(imageDir, { recursive: true, force: true });
    });
    events.emit('image.removed', { image: name });
  }

  /** All versions of all images, and who stands on each. */
  async versions(): Promise<ImageVersion[]> {
    const found: ImageVersion[] = [];
    for (const name of await this.#names()) {
      for (const { dir, isCurrent } of await allVersions(this.#imageDir(name))) {
        const usedBy = await this.#inUseBy(dir);
        found.push({ name, version: path.basename(dir), dir, isCurrent, usedBy });
      }
    }
    return found;
  }

  /**
   * Removes old versions that nobody stands on any more.
   * @returns their directories
   */
  async prune(options: { signal?: AbortSignal | undefined } = {}): Promise<string[]> {
    const removed: string[] = [];
    for (const name of await this.#names()) {
      await withImageLock(this.#paths, name, options.signal, async () => {
        removed.push(...(await this.#removeOldVersions(name)));
      });
    }
    return removed;
  }

  async #removeOldVersions(name: string): Promise<string[]> {
    const removed: string[] = [];
    for (const dir of await oldVersions(this.#imageDir(name))) {
      if ((await this.#inUseBy(dir)).length > 0) continue;
      await rm(dir, { recursive: true, force: true });
      removed.push(dir);
    }
    return removed;
  }

  #imageDir(name: string): string {
    if (!IMAGE_NAME.test(name)) {
      throw new ConfigError(`"${name}" is no name of an image`, {
        field: 'image',
        value: name,
        hint: 'Use lower-case letters, digits, dot, dash and underscore, at most 63.',
      });
    }
    return path.join(this.#paths.imagesDir, name);
  }

  async #names(): Promise<string[]> {
    const entries = await readdir(this.#paths.imagesDir).catch(() => []);
    return entries.filter((entry) => IMAGE_NAME.test(entry)).sort();
  }
}
