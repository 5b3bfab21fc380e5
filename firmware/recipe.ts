/**
 * What an image is built from. A recipe is plain data; `parseRecipe` checks what a YAML file or a
 * caller gave, field by field, and names the field that is wrong.
 */
import { createHash } from 'node:crypto';
import { ConfigError } from '../src/errors.ts';

/** One file that a recipe puts into the image. Exactly one of `from` and `content`. */
export interface RecipeFile {
  /** Absolute path in the image. */
  readonly to: string;
  /** Path of a file on the host, relative to the recipe file. */
  readonly from?: string | undefined;
  /** The text itself. */
  readonly content?: string | undefined;
  /** Permission bits. Default 0o644. */
  readonly mode: number;
  /** `user` or `user:group` in the image. Default `root:root`. */
  readonly owner: string;
}

/** A checked recipe with every default filled in. */
export interface Recipe {
  readonly name: string;
  /** Debian suite. Default `trixie`. */
  readonly suite: string;
  /** Packages besides the minimal system that every image has. */
  readonly packages: readonly string[];
  readonly files: readonly RecipeFile[];
  /** Shell script run as root inside the image, after packages and files. */
  readonly provision?: string | undefined;
  /** Environment of every exec. */
  readonly environment: Readonly<Record<string, string>>;
  /** Virtual size of the disk in MiB. Default 16384. */
  readonly sizeMib: number;
}

/** What a caller may give; see {@link Recipe} for meanings and defaults. */
export interface RecipeInput {
  name: string;
  suite?: string | undefined;
  packages?: readonly string[] | undefined;
  files?:
    | readonly {
        to: string;
        from?: string | undefined;
        content?: string | undefined;
        mode?: number | string | undefined;
        owner?: string | undefined;
      }[]
    | undefined;
  provision?: string | undefined;
  environment?: Readonly<Record<string, string>> | undefined;
  sizeMib?: number | undefined;
}

/** Default of {@link Recipe.sizeMib}: sparse, so it costs the host only what the guest writes. */
export const DEFAULT_SIZE_MIB = 16_384;
/** Smallest disk that holds a Debian system. */
const MIN_SIZE_MIB = 512;
/** 16 TiB, the largest ext4 with 4 KiB blocks that every mke2fs makes. */
const MAX_SIZE_MIB = 16 * 1024 * 1024;
const MAX_PACKAGES = 4096;
const MAX_FILES = 4096;
const MAX_TEXT_BYTES = 16 * 1024 * 1024;

/** Names of images: used as a directory's name. */
export const IMAGE_NAME = /^[a-z0-9][a-z0-9._-]{0,62}$/;
/** Debian policy 5.6.1, with apt's `=version`, `/suite` and `:arch`. */
const PACKAGE = /^[a-z0-9][a-z0-9+.-]+(:[a-z0-9]+)?([=/][A-Za-z0-9.+:~-]+)?$/;
const SUITE = /^[a-z][a-z0-9._-]{0,62}$/;
const ENV_NAME = /^[A-Za-z_][A-Za-z0-9_]*$/;
const OWNER = /^[a-z0-9_][a-z0-9_-]*(:[a-z0-9_][a-z0-9_-]*)?$/;
const FIELDS = ['name', 'suite', 'packages', 'files', 'provision', 'environment', 'sizeMib'];
const FILE_FIELDS = ['to', 'from', 'content', 'mode', 'owner'];

function fail(field: string, value: unknown, right: string): never {
  throw new ConfigError(`recipe: ${field}: ${right}`, {
    field,
    value,
    hint: `Correct ${field} in the recipe: ${right}.`,
  });
}

function record(value: unknown, field: string): Record<string, unknown> {
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) {
    return value as Record<string, unknown>;
  }
  return fail(field, value, 'a mapping is needed');
}

function list(value: unknown, field: string, max: number): readonly unknown[] {
  if (value === undefined || value === null) return [];
  if (!Array.isArray(value)) return fail(field, value, 'a list is needed');
  if (value.length > max) return fail(field, value.length, `at most ${max} entries`);
  return value;
}

function noOthers(value: Record<string, unknown>, known: readonly string[], field: string): void {
  for (const key of Object.keys(value)) {
    if (!known.includes(key)) fail(`${field}${key}`, key, `unknown; known are ${known.join(', ')}`);
  }
}

function text(value: unknown, field: string): string {
  if (typeof value !== 'string') return fail(field, value, 'text is needed');
  if (value.includes('\0')) return fail(field, undefined, 'text without NUL bytes is needed');
  if (Buffer.byteLength(value) > MAX_TEXT_BYTES) {
    return fail(field, undefined, `at most ${MAX_TEXT_BYTES} bytes`);
  }
  return value;
}

function matching(value: unknown, pattern: RegExp, field: string, right: string): string {
  return typeof value === 'string' && pattern.test(value) ? value : fail(field, value, right);
}

function parseMode(value: unknown, field: string): number {
  if (value === undefined) return 0o644;
  const mode =
    typeof value === 'string' && /^0?[0-7]{3,4}$/.test(value) ? parseInt(value, 8) : value;
  if (typeof mode === 'number' && Number.isInteger(mode) && mode >= 0 && mode <= 0o7777)
    return mode;
  return fail(field, value, "permission bits in octal are needed, e.g. '0755'");
}

function parseFile(value: unknown, field: string): RecipeFile {
  const file = record(value, field);
  noOthers(file, FILE_FIELDS, `${field}.`);
  const to = text(file['to'], `${field}.to`);
  if (
    !to.startsWith('/') ||
    to.endsWith('/') ||
    to.split('/').includes('..') ||
    to.includes('\n')
  ) {
    fail(`${field}.to`, to, 'an absolute path of a file, without `..`, is needed');
  }
  if ((file['from'] === undefined) === (file['content'] === undefined)) {
    fail(field, undefined, 'exactly one of from and content is needed');
  }
  return {
    to,
    from: file['from'] === undefined ? undefined : text(file['from'], `${field}.from`),
    content: file['content'] === undefined ? undefined : text(file['content'], `${field}.content`),
    mode: parseMode(file['mode'], `${field}.mode`),
    owner: matching(file['owner'] ?? 'root:root', OWNER, `${field}.owner`, 'user or user:group'),
  };
}

/** Checks environment variables; also used for those of imported images. */
export function parseEnvironment(value: unknown, field: string): Record<string, string> {
  const result: Record<string, string> = {};
  for (const [name, entry] of Object.entries(record(value ?? {}, field))) {
    matching(name, ENV_NAME, `${field}.${name}`, 'not a name of an environment variable');
    const plain = typeof entry === 'number' || typeof entry === 'boolean' ? String(entry) : entry;
    const checked = text(plain, `${field}.${name}`);
    if (checked.includes('\n')) fail(`${field}.${name}`, undefined, 'one line of text is needed');
    result[name] = checked;
  }
  return result;
}

function parseSize(value: unknown): number {
  if (value === undefined) return DEFAULT_SIZE_MIB;
  const right = `an integer of MiB from ${MIN_SIZE_MIB} to ${MAX_SIZE_MIB} is needed`;
  if (typeof value !== 'number' || !Number.isInteger(value)) return fail('sizeMib', value, right);
  return value < MIN_SIZE_MIB || value > MAX_SIZE_MIB ? fail('sizeMib', value, right) : value;
}

/**
 * Checks a recipe and fills in defaults.
 * @throws {ConfigError} naming the field.
 */
export function parseRecipe(value: unknown): Recipe {
  const input = record(value, 'recipe');
  noOthers(input, FIELDS, '');
  return {
    name: matching(
      input['name'],
      IMAGE_NAME,
      'name',
      'lower-case letters, digits, dot, dash and underscore are allowed, at most 63',
    ),
    suite: matching(input['suite'] ?? 'trixie', SUITE, 'suite', 'a Debian suite is needed'),
    packages: list(input['packages'], 'packages', MAX_PACKAGES).map((name, index) =>
      matching(name, PACKAGE, `packages[${index}]`, 'a Debian package name is needed'),
    ),
    files: list(input['files'], 'files', MAX_FILES).map((file, index) =>
      parseFile(file, `files[${index}]`),
    ),
    provision: input['provision'] === undefined ? undefined : text(input['provision'], 'provision'),
    environment: parseEnvironment(input['environment'], 'environment'),
    sizeMib: parseSize(input['sizeMib']),
  };
}

/**
 * SHA-256 of all that decides what a build yields. `inputs` names the rest: contents of the files
 * taken from the host, host certificates, the builder's own version.
 */
export function recipeHash(recipe: Recipe, inputs: Readonly<Record<string, string>>): string {
  const canonical = (value: unknown): unknown => {
    if (Array.isArray(value)) return value.map(canonical);
    if (typeof value !== 'object' || value === null) return value;
    const entries = Object.entries(value).filter(([, entry]) => entry !== undefined);
    entries.sort(([a], [b]) => (a < b ? -1 : 1));
    return entries.map(([key, entry]) => [key, canonical(entry)]);
  };
  return createHash('sha256')
    .update(JSON.stringify([canonical(recipe), canonical(inputs)]))
    .digest('hex');
}
