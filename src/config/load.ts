/** The sources in their order, merged and validated, with the origin of every value. */
import { homedir } from 'node:os';
import { dirname, isAbsolute, join, resolve } from 'node:path';
import { ConfigError } from '../errors.ts';
import { fileLayer } from './file-layer.ts';
import {
  describeOrigin,
  ENV_FIELDS,
  envLayer,
  flagLayer,
  type FlagValue,
  type LayerEntry,
  type Origin,
} from './layers.ts';
import { nearest } from './nearest.ts';
import { resolvePaths, type ResolvedPaths } from './paths.ts';
import { checkConfig, FIELDS, type Config, type Field, type SchemaIssue } from './schema.ts';

/** Problems beyond this number are counted, not told. */
const MAX_REPORTED = 5;

/** Settings that are paths on the host: made absolute, `~/` expanded. */
const PATH_FIELDS: ReadonlySet<string> = new Set([
  'state.dataDir',
  'state.runtimeDir',
  'state.cacheDir',
  'state.memoryDir',
  'log.file',
]);

/** What {@link loadConfig} goes by; everything has a default. */
export interface LoadOptions {
  /** Default `process.env`. */
  env?: NodeJS.ProcessEnv;
  /** Settings given on the command line. */
  flags?: Iterable<FlagValue>;
  /** Read instead of the system's and the user's file; must exist. */
  configFile?: string | undefined;
}

/** The configuration, its directories, and where each value comes from. */
export interface LoadedConfig {
  readonly config: Config;
  /** Directories after `state.*` has been applied. */
  readonly paths: ResolvedPaths;
  /** By dotted path, for every setting. */
  readonly origins: ReadonlyMap<string, Origin>;
}

/**
 * Loads the configuration: defaults < /etc/qmp-agent/config.yaml < ~/.config/qmp-agent/config.yaml <
 * `QMP_AGENT_*` < flags.
 *
 * @throws ConfigError that names every setting which is wrong, where it stands and what to write.
 */
export async function loadConfig(o: LoadOptions = {}): Promise<LoadedConfig> {
  const env = o.env ?? process.env;
  const paths = resolvePaths(env);
  const files = o.configFile === undefined ? paths.configFiles : [resolve(o.configFile)];
  const layers: LayerEntry[][] = [];
  for (const file of files) layers.push(await fileLayer(file, o.configFile !== undefined));
  layers.push(envLayer(env), flagLayer(o.flags ?? []));
  return mergeLayers(layers, { ...paths, configFiles: files }, env['HOME'] ?? homedir());
}

/** Merges layers, the strongest last, and validates the result. Pure. @throws ConfigError */
export function mergeLayers(
  layers: readonly (readonly LayerEntry[])[],
  paths: ResolvedPaths,
  home: string,
): LoadedConfig {
  const entries = new Map<string, LayerEntry>();
  for (const entry of layers.flat()) entries.set(entry.path.join('.'), entry);
  const tree = Object.create(null) as Record<string, unknown>;
  for (const [name, entry] of entries) {
    place(tree, entry.path, PATH_FIELDS.has(name) ? absolute(entry, home) : entry.value);
  }
  const checked = checkConfig(tree);
  if (checked.config === undefined) throw toError(checked.issues, entries);
  const { config } = checked;
  return {
    config,
    paths: {
      dataDir: config.state.dataDir ?? paths.dataDir,
      runtimeDir: config.state.runtimeDir ?? paths.runtimeDir,
      cacheDir: config.state.cacheDir ?? paths.cacheDir,
      configFiles: paths.configFiles,
    },
    origins: new Map(
      FIELDS.map((field) => {
        const name = field.path.join('.');
        return [name, entries.get(name)?.origin ?? { kind: 'default' }];
      }),
    ),
  };
}

function place(tree: Record<string, unknown>, path: readonly string[], value: unknown): void {
  const [first, second] = path;
  if (first === undefined) return;
  if (second === undefined) {
    // A section that is no map: kept for validation to refuse, whatever a weaker layer said.
    tree[first] = value ?? null;
    return;
  }
  const section = tree[first];
  if (typeof section === 'object' && section !== null) {
    (section as Record<string, unknown>)[second] = value;
  } else {
    tree[first] = { [second]: value };
  }
}

/** Relative paths count from the file that names them, else from the working directory. */
function absolute(entry: LayerEntry, home: string): unknown {
  const { value, origin } = entry;
  if (typeof value !== 'string' || value === '') return value;
  if (value === '~' || value.startsWith('~/')) return join(home, value.slice(1));
  if (isAbsolute(value)) return value;
  return origin.kind === 'file' ? resolve(dirname(origin.file), value) : resolve(value);
}

function toError(
  issues: readonly SchemaIssue[],
  entries: ReadonlyMap<string, LayerEntry>,
): ConfigError {
  const told = issues.slice(0, MAX_REPORTED).map((issue) => tell(issue, entries));
  const [first] = told;
  const more = issues.length - told.length;
  const message =
    told.map(({ message }) => message).join('; ') + (more > 0 ? `; and ${more} more` : '');
  const hints = [...new Set(told.map(({ hint }) => hint))];
  return new ConfigError(message, {
    field: first?.field ?? 'configuration',
    value: first?.value,
    hint: hints.join('; '),
  });
}

interface Told {
  field: string;
  value: unknown;
  message: string;
  hint: string;
}

function tell(issue: SchemaIssue, entries: ReadonlyMap<string, LayerEntry>): Told {
  // An issue may point into a list (`log.trace.1`): the setting is what the user wrote.
  const entry =
    entries.get(issue.path.slice(0, 2).join('.')) ??
    entries.get(issue.path[0] ?? '') ??
    firstBelow(issue.path[0], entries);
  const where = entry === undefined ? '' : ` (${describeOrigin(entry.origin)})`;
  const field = issue.path.slice(0, 2).join('.');
  if (issue.kind === 'unknown') {
    const subject =
      entry?.origin.kind === 'env'
        ? `unknown setting ${entry.origin.name}`
        : `unknown setting ${field}${where}`;
    return {
      field,
      value: entry?.value,
      message: subject,
      hint: suggest(issue.path, entry?.origin),
    };
  }
  const known = FIELDS.find(({ path }) => path.join('.') === field);
  const name = entry?.origin.kind === 'flag' ? entry.origin.name : field;
  const shown = known === undefined ? field : `${name} = ${JSON.stringify(entry?.value)}`;
  const suffix = entry?.origin.kind === 'flag' ? '' : where;
  return {
    field: name,
    value: entry?.value,
    message: `${shown}${suffix}: ${issue.problem}`,
    hint: known === undefined ? sectionHint(field) : `${known.hint}`,
  };
}

function firstBelow(
  section: string | undefined,
  entries: ReadonlyMap<string, LayerEntry>,
): LayerEntry | undefined {
  return [...entries.values()].find((entry) => entry.path[0] === section);
}

/** What a setting that does not exist was meant to be. */
function suggest(path: readonly string[], origin: Origin | undefined): string {
  if (origin?.kind === 'env') {
    const name = nearest(origin.name, ENV_FIELDS.keys());
    return name === undefined
      ? 'see qmp-agent config show for all settings'
      : `did you mean ${name}?`;
  }
  const [section = '', key] = path;
  const sections = new Set(FIELDS.map((field) => field.path[0]));
  if (!sections.has(section)) {
    const near = nearest(section, sections);
    if (near !== undefined) return `did you mean ${near}?`;
    // Settings are often written without their section.
    const bare = FIELDS.find((field) => field.path[1] === section);
    return bare === undefined
      ? `the sections are ${[...sections].join(', ')}`
      : `did you mean ${dotted(bare)}?`;
  }
  const keys = FIELDS.filter((field) => field.path[0] === section).map((field) => field.path[1]);
  const near = nearest(key ?? '', keys);
  if (near !== undefined) return `did you mean ${section}.${near}?`;
  const elsewhere = FIELDS.find((field) => field.path[1] === key);
  return elsewhere === undefined ? sectionHint(section) : `did you mean ${dotted(elsewhere)}?`;
}

function sectionHint(section: string): string {
  const keys = FIELDS.filter((field) => field.path[0] === section).map((field) => field.path[1]);
  return `the settings of ${section} are ${keys.join(', ')}`;
}

function dotted(field: Field): string {
  return field.path.join('.');
}
