/** `qmp-agent image …`. */
import { readFile } from 'node:fs/promises';
import { dirname } from 'node:path';
import type { Command } from 'commander';
import { formatAge, formatBytes, formatMs } from '../../config/units.ts';
import { ConfigError } from '../../errors.ts';
import type { Image, RecipeInput } from '../../image/index.ts';
import { attempt, type Outcome } from '../attempt.ts';
import type { CliContext } from '../context.ts';
import { startSteps } from '../progress.ts';
import { openImages } from '../vm-access.ts';

/** Adds `image` with its subcommands. */
export function registerImage(program: Command, context: CliContext): void {
  const image = program.command('image').description('Build, import, list and remove images.');
  image
    .command('build')
    .description(
      'Build an image: base where no recipe is given. Nothing is done where nothing changed.',
    )
    .option('-f, --file <recipe>', 'recipe in YAML')
    .option('--force', 'build anew, with the newest packages')
    .option('--json', 'print progress and result as JSON lines')
    .argument('[name]', 'base, or the name for the image of a recipe')
    .action((name: string | undefined, flags: { file?: string; force?: boolean }) =>
      build(context, name, flags),
    );
  image
    .command('list')
    .alias('ls')
    .description('List images.')
    .option('-q, --quiet', 'print names only')
    .option('--json', 'print a JSON array')
    .action((flags: { quiet?: boolean }) => list(context, flags));
  image
    .command('inspect')
    .description('Show the manifests of images as a JSON array.')
    .argument('<image...>', 'names')
    .option('--json', 'errors as JSON too')
    .action((names: string[]) => inspect(context, names));
  image
    .command('remove')
    .alias('rm')
    .description('Remove images that no VM stands on.')
    .argument('<image...>', 'names')
    .option('--json', 'print a JSON array of results')
    .action((names: string[]) => remove(context, names));
  image
    .command('prune')
    .description('Remove old versions of images that no VM stands on any more.')
    .option('--json', 'print a JSON array of their directories')
    .action(() => prune(context));
  image
    .command('import')
    .description(
      'Make an image from a directory, a tarball of a root filesystem, an OCI layout, or the output of docker save.',
    )
    .argument('<source>', 'directory or archive')
    .requiredOption('--name <name>', 'name of the image')
    .option('--json', 'print progress and result as JSON lines')
    .action((source: string, flags: { name: string }) => importImage(context, source, flags.name));
}

async function build(
  context: CliContext,
  name: string | undefined,
  flags: { file?: string; force?: boolean },
): Promise<void> {
  const recipe = flags.file === undefined ? await builtIn(name) : await readRecipe(flags.file);
  if (name !== undefined && flags.file !== undefined) recipe.name = name;
  const store = await openImages(context);
  const progress = await startSteps(context, `image ${recipe.name}`);
  const result = await store
    .build(recipe, {
      signal: context.signal,
      force: flags.force ?? false,
      onProgress: (step) => progress.update(step),
      ...(flags.file === undefined ? {} : { baseDir: dirname(flags.file) }),
    })
    .finally(() => progress.stop());
  const { image, cached, durationMs } = result;
  if (context.json) {
    context.print(JSON.stringify({ image: summary(image), cached, durationMs }));
    return;
  }
  const what = cached ? 'is up to date' : `built in ${formatMs(durationMs)}`;
  context.print(`image ${image.name} ${what} (${image.id}, ${formatBytes(diskBytes(image))})`);
}

async function builtIn(name = 'base'): Promise<RecipeInput> {
  const { BASE_RECIPE } = await import('../../image/index.ts');
  if (name === BASE_RECIPE.name) return { ...BASE_RECIPE };
  throw new ConfigError(`there is no recipe named ${name} in qmp-agent`, {
    field: 'name',
    value: name,
    hint: 'give a recipe file with -f, or build base',
  });
}

/** The recipe in a YAML file; its fields are checked by the store. */
async function readRecipe(file: string): Promise<RecipeInput> {
  const fail = (problem: string, cause?: unknown): never => {
    throw new ConfigError(`recipe ${file}: ${problem}`, {
      field: '--file',
      value: file,
      hint: 'give a YAML file with name, packages and so on: see docs/images.md',
      cause,
    });
  };
  const text = await readFile(file, 'utf8').catch((error: Error) => fail(error.message, error));
  const { parse } = await import('yaml');
  let recipe: unknown;
  try {
    recipe = parse(text);
  } catch (error) {
    fail((error as Error).message, error);
  }
  if (typeof recipe !== 'object' || recipe === null || Array.isArray(recipe)) fail('not a map');
  return recipe as RecipeInput;
}

async function importImage(context: CliContext, source: string, name: string): Promise<void> {
  const store = await openImages(context);
  const progress = await startSteps(context, `image ${name}`);
  const image = await store
    .import(source, {
      name,
      signal: context.signal,
      onProgress: (step) => progress.update(step),
    })
    .finally(() => progress.stop());
  if (context.json) context.print(JSON.stringify({ image: summary(image) }));
  else
    context.print(`image ${image.name} imported (${image.id}, ${formatBytes(diskBytes(image))})`);
}

async function list(context: CliContext, flags: { quiet?: boolean }): Promise<void> {
  const images = await (await openImages(context)).list();
  if (context.json) {
    context.printJson(images.map(summary));
  } else if (flags.quiet === true) {
    for (const image of images) context.print(image.name);
  } else {
    const { printTable } = await import('../table.ts');
    printTable(
      context,
      ['NAME', 'ID', 'ORIGIN', 'KERNEL', 'SIZE', 'DISK', 'CREATED'],
      images.map((image) => [
        image.name,
        image.id,
        image.manifest.suite ?? image.manifest.origin,
        image.manifest.kernelVersion,
        formatBytes(diskBytes(image)),
        formatBytes(image.rootfsVirtualBytes),
        formatAge(image.manifest.createdAt),
      ]),
    );
  }
}

async function inspect(context: CliContext, names: readonly string[]): Promise<void> {
  const store = await openImages(context);
  const found = [];
  for (const name of names) {
    const { dir, rootfsPath, kernelPath, manifest } = await store.get(name);
    found.push({ ...manifest, dir, rootfsPath, kernelPath });
  }
  context.print(JSON.stringify(found, undefined, 2));
}

async function remove(context: CliContext, names: readonly string[]): Promise<void> {
  const store = await openImages(context);
  const outcomes: Outcome[] = [];
  for (const name of new Set(names)) {
    const action = () => store.remove(name, { signal: context.signal });
    outcomes.push(await attempt(context, 'image', name, action));
  }
  if (context.json) context.printJson(outcomes);
}

async function prune(context: CliContext): Promise<void> {
  const removed = await (await openImages(context)).prune({ signal: context.signal });
  if (context.json) context.printJson(removed);
  else for (const dir of removed) context.print(dir);
}

/** What its files take on the host. */
function diskBytes(image: Image): number {
  return Object.values(image.manifest.files).reduce((sum, file) => sum + file.sizeBytes, 0);
}

function summary(image: Image): Record<string, unknown> {
  const { name, id, dir, manifest } = image;
  return {
    name,
    id,
    origin: manifest.origin,
    suite: manifest.suite,
    kernelVersion: manifest.kernelVersion,
    sizeBytes: diskBytes(image),
    virtualBytes: image.rootfsVirtualBytes,
    createdAt: manifest.createdAt,
    dir,
  };
}
