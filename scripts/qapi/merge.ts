import type {
  AlternateNode,
  EnumNode,
  Marks,
  Member,
  Model,
  ObjectNode,
  TypeNode,
} from './model.ts';
import type { EntityOf, Schema, SchemaEntity } from './schema.ts';

/** The same thing in each version that has it. */
type Refs<T> = { schema: Schema; item: T }[];

interface Named {
  name: string;
  features?: string[];
}

/**
 * Commands that take more than the schema lists: `'gen': false` in QAPI, which introspection does
 * not show. device_add takes the properties of the device.
 */
const OPEN_ARGUMENTS: readonly string[] = ['device_add'];

const BUILTINS: Readonly<Record<string, string>> = {
  string: 'string',
  int: 'number',
  number: 'number',
  boolean: 'boolean',
  null: 'null',
  value: 'unknown',
};

/** Merges schemas, oldest first. */
export function mergeSchemas(schemas: readonly Schema[]): Model {
  return new Merger(schemas).merge();
}

/**
 * Walks all schemas at once, from the commands and events down, and gives each type the name of
 * the place where it is first met. Breadth first, so that a type met at several depths takes the
 * shortest path as its name.
 */
class Merger {
  readonly #schemas: readonly Schema[];
  readonly #nodes = new Map<string, TypeNode>();
  readonly #names = new Set<string>();
  readonly #queue: (() => void)[] = [];

  constructor(schemas: readonly Schema[]) {
    this.#schemas = schemas;
  }

  merge(): Model {
    const commands = this.#all('command').map(([name, refs]) => {
      const base = pascal(name);
      return {
        name,
        args: this.#type(pick(refs, 'arg-type'), `${base}Arguments`, OPEN_ARGUMENTS.includes(name)),
        result: this.#type(pick(refs, 'ret-type'), `${base}Return`),
        oob: refs.some(({ item }) => item['allow-oob'] === true),
        marks: this.#marks(refs),
      };
    });
    const events = this.#all('event').map(([name, refs]) => ({
      name,
      data: this.#type(pick(refs, 'arg-type'), `${pascal(name.toLowerCase())}EventData`),
      marks: this.#marks(refs),
    }));
    for (let job = this.#queue.shift(); job; job = this.#queue.shift()) job();
    return { versions: this.#schemas.map(({ version }) => version), commands, events };
  }

  #all<M extends 'command' | 'event'>(metaType: M): [string, Refs<EntityOf<M>>][] {
    const names = new Set(this.#schemas.flatMap((schema) => schema.names(metaType)));
    return [...names]
      .sort()
      .map((name) => [
        name,
        this.#schemas
          .filter((schema) => schema.entities.get(name)?.['meta-type'] === metaType)
          .map((schema) => ({ schema, item: schema.get(name) as EntityOf<M> })),
      ]);
  }

  #type(refs: Refs<string>, hint: string, open = false): TypeNode {
    const key = `${refs.map(({ schema, item }) => `${schema.version}:${item}`).join()}${open ? '+' : ''}`;
    const known = this.#nodes.get(key);
    if (known) return known;
    const entities = refs.map(({ schema, item }) => ({ schema, item: schema.get(item) }));
    const kinds = groupBy(entities, ({ item }) => kindOf(item));
    const types = [...kinds.values()].map((same) => this.#create(same, hint, open));
    const [only] = types;
    const node: TypeNode = types.length === 1 && only ? only : { kind: 'either', types };
    this.#nodes.set(key, node);
    return node;
  }

  #create(refs: Refs<SchemaEntity>, hint: string, open: boolean): TypeNode {
    const first = refs[0]?.item;
    if (!first) throw new Error(`${hint}: no version has it`);
    switch (first['meta-type']) {
      case 'builtin':
        return { kind: 'builtin', text: BUILTINS[first['json-type']] ?? 'unknown' };
      case 'enum':
        return this.#enum(refs as Refs<EntityOf<'enum'>>, this.#name(hint));
      case 'array': {
        const elements = pick(refs as Refs<EntityOf<'array'>>, 'element-type');
        const name = hint.endsWith('Return') ? `${hint}Item` : hint;
        return { kind: 'array', element: this.#type(elements, name) };
      }
      case 'alternate':
        return this.#alternate(refs as Refs<EntityOf<'alternate'>>, this.#name(hint));
      case 'object':
        return this.#object(refs as Refs<EntityOf<'object'>>, hint, open);
      case 'command':
      case 'event':
        throw new Error(`${hint}: ${first.name} is no type`);
    }
  }

  #enum(refs: Refs<EntityOf<'enum'>>, name: string): EnumNode {
    const values = byName(
      refs,
      ({ values, members }) => members ?? values.map((value): Named => ({ name: value })),
    );
    return {
      kind: 'enum',
      name,
      values: values.map(([value, found]) => ({ value, marks: this.#marks(found, refs) })),
    };
  }

  #alternate(refs: Refs<EntityOf<'alternate'>>, name: string): AlternateNode {
    const node: AlternateNode = { kind: 'alternate', name, members: [] };
    this.#queue.push(() => {
      // Alternates tell their members apart by JSON type, so this is what members share.
      const kinds = groupBy(
        refs.flatMap(({ schema, item }) =>
          item.members.map(({ type }) => ({ schema, item: type })),
        ),
        ({ schema, item }) => kindOf(schema.get(item)),
      );
      for (const [kind, found] of kinds) {
        node.members.push(this.#type(found, `${stem(name)}${pascal(kind)}`));
      }
    });
    return node;
  }

  #object(refs: Refs<EntityOf<'object'>>, hint: string, open: boolean): ObjectNode {
    const isNamed = refs.some(({ item }) => item.members.length > 0 || item.variants?.length);
    const name = isNamed ? this.#name(hint) : '';
    const tag = refs.find(({ item }) => item.tag !== undefined)?.item.tag;
    const node: ObjectNode = { kind: 'object', name, members: [], variants: [], open };
    if (tag !== undefined) node.tag = tag;
    this.#queue.push(() => {
      node.members = byName(refs, ({ members }) => members).map(([member, found]): Member => ({
        name: member,
        optional: found.length < refs.length || found.some(({ item }) => 'default' in item),
        type: this.#type(pick(found, 'type'), `${stem(name)}${pascal(member)}`),
        marks: this.#marks(found, refs),
      }));
      const variants = byName(refs, ({ variants = [] }) =>
        variants.map(({ case: value, type }): Named & { type: string } => ({ name: value, type })),
      );
      node.variants = variants.map(([value, found]) => ({
        value,
        type: this.#type(pick(found, 'type'), `${stem(name)}${pascal(value)}`),
        marks: this.#marks(found, refs),
      }));
    });
    return node;
  }

  /**
   * Marks of something found in `refs`, as part of something that exists in `within`: what a
   * version lacks because it lacks the whole is not said again.
   */
  #marks(refs: Refs<{ features?: string[] }>, within?: Refs<unknown>): Marks {
    const scope = within?.map(({ schema }) => schema) ?? this.#schemas;
    const present = scope.filter((schema) => refs.some((ref) => ref.schema === schema));
    const marks: Marks = {};
    const [first, last] = [present[0], present.at(-1)];
    if (first && first !== scope[0]) marks.from = first.version;
    if (last && last !== scope.at(-1)) marks.until = last.version;
    const featured = (feature: string): string[] =>
      refs
        .filter(({ item }) => item.features?.includes(feature))
        .map(({ schema }) => schema.version);
    if (featured('deprecated').length > 0) marks.deprecated = featured('deprecated');
    if (featured('unstable').length > 0) marks.unstable = true;
    return marks;
  }

  #name(hint: string): string {
    let name = hint;
    for (let n = 2; this.#names.has(name); n += 1) name = `${hint}${n}`;
    this.#names.add(name);
    return name;
  }
}

function pick<K extends string>(refs: Refs<Record<K, string>>, key: K): Refs<string> {
  return refs.map(({ schema, item }) => ({ schema, item: item[key] }));
}

/** Finds the parts of the same name, in the order of the first version, then what came later. */
function byName<T, M extends Named>(
  refs: Refs<T>,
  partsOf: (item: T) => readonly M[],
): [string, Refs<M>][] {
  const found = new Map<string, Refs<M>>();
  for (const { schema, item } of refs) {
    for (const part of partsOf(item)) {
      const same = found.get(part.name) ?? [];
      same.push({ schema, item: part });
      found.set(part.name, same);
    }
  }
  return [...found];
}

/** Map.groupBy is not in Node 20. */
function groupBy<T>(items: readonly T[], keyOf: (item: T) => string): Map<string, T[]> {
  const groups = new Map<string, T[]>();
  for (const item of items) {
    const group = groups.get(keyOf(item)) ?? [];
    group.push(item);
    groups.set(keyOf(item), group);
  }
  return groups;
}

function kindOf(entity: SchemaEntity): string {
  return entity['meta-type'] === 'builtin' ? entity['json-type'] : entity['meta-type'];
}

/** `blockdev-add` → `BlockdevAdd`. */
function pascal(name: string): string {
  return name
    .split(/[^A-Za-z0-9]+/)
    .map((word) => word.slice(0, 1).toUpperCase() + word.slice(1))
    .join('');
}

/** What stands in front of a member's name: without the word that says where the whole is used. */
function stem(name: string): string {
  return name.replace(/(Arguments|ReturnItem|Return|Data)$/, '');
}
