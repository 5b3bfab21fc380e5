/**
 * The sources of settings other than files, and what all sources have in common: a layer is a flat
 * list of values, each with the place it comes from. Pure.
 */
import { FIELDS } from './schema.ts';

/** Where a value comes from. */
export type Origin =
  | { readonly kind: 'default' }
  | { readonly kind: 'file'; readonly file: string; readonly line: number | undefined }
  | { readonly kind: 'env'; readonly name: string }
  | { readonly kind: 'flag'; readonly name: string };

/** One value of a source. The path may be one that does not exist: validation names it then. */
export interface LayerEntry {
  readonly path: readonly string[];
  readonly value: unknown;
  readonly origin: Origin;
}

/** A value given by a flag. */
export interface FlagValue {
  readonly path: readonly [section: string, key: string];
  readonly value: unknown;
  /** As the user wrote it: `--memory`. */
  readonly flag: string;
}

const PREFIX = 'QMP_AGENT_';

/** `vm.memoryMib` → `QMP_AGENT_VM_MEMORY_MIB`. */
export function envName(path: readonly string[]): string {
  const words = path.map((part) => part.replace(/[A-Z]/g, '_$&'));
  return PREFIX + words.join('_').toUpperCase();
}

/** All variables that have a meaning, with the setting each one is. */
export const ENV_FIELDS: ReadonlyMap<string, readonly [string, string]> = new Map(
  FIELDS.map((field) => [envName(field.path), field.path]),
);

/**
 * Settings from the environment. Empty variables count as unset. A variable that starts like a
 * section (`QMP_AGENT_VM_…`) and names no setting is an entry too, so that a typing error is
 * reported and not lost; other variables that start with `QMP_AGENT_` are not settings.
 */
export function envLayer(env: NodeJS.ProcessEnv): LayerEntry[] {
  const sections = new Set(FIELDS.map((field) => `${envName([field.path[0]])}_`));
  return Object.entries(env).flatMap(([name, value]): LayerEntry[] => {
    if (!name.startsWith(PREFIX) || value === undefined || value === '') return [];
    const origin: Origin = { kind: 'env', name };
    const path = ENV_FIELDS.get(name);
    if (path !== undefined) return [{ path, value, origin }];
    if (![...sections].some((section) => name.startsWith(section))) return [];
    return [{ path: [name], value: undefined, origin }];
  });
}

/** Settings from flags; those not given (`undefined`) are left out. */
export function flagLayer(flags: Iterable<FlagValue>): LayerEntry[] {
  return [...flags]
    .filter((flag) => flag.value !== undefined)
    .map(({ path, value, flag }) => ({ path, value, origin: { kind: 'flag', name: flag } }));
}

/** `/etc/qmp-agent/config.yaml:3`, `QMP_AGENT_VM_VCPUS`, `--vcpus`, `default`. */
export function describeOrigin(origin: Origin): string {
  switch (origin.kind) {
    case 'default':
      return 'default';
    case 'file':
      return origin.line === undefined ? origin.file : `${origin.file}:${origin.line}`;
    case 'env':
    case 'flag':
      return origin.name;
  }
}
