/** What QEMU says about its own commands, for completion and help at the QMP prompt. */

/** An entity of `query-qmp-schema`, as far as it is read here. Source: QEMU's qapi/introspect.json. */
interface Entity {
  readonly name: string;
  readonly 'meta-type': string;
  readonly 'arg-type'?: string;
  readonly 'ret-type'?: string;
  readonly 'element-type'?: string;
  readonly 'json-type'?: string;
  readonly values?: readonly string[];
  readonly members?: readonly { name?: string; type: string; default?: unknown }[];
  readonly variants?: readonly { case: string; type: string }[];
}

/** One argument, as `help` shows it. */
export interface ArgumentInfo {
  readonly name: string;
  readonly optional: boolean;
  /** `string`, `int`, `a|b|c`, `object`, `[string]`, … */
  readonly type: string;
}

/** Longest list of enum values that `help` spells out. */
const MAX_SHOWN_VALUES = 8;

/** The commands of the connected QEMU. Built from the answer of `query-qmp-schema`; pure. */
export class CommandIndex {
  readonly #entities: ReadonlyMap<string, Entity>;
  /** All commands, in alphabetical order. */
  readonly commands: readonly string[];

  constructor(schema: unknown) {
    const entities = (Array.isArray(schema) ? schema : []) as readonly Entity[];
    this.#entities = new Map(entities.map((entity) => [entity.name, entity]));
    this.commands = entities
      .filter((entity) => entity['meta-type'] === 'command')
      .map(({ name }) => name)
      .sort();
  }

  /** The arguments of a command; undefined where there is no such command. */
  arguments(command: string): ArgumentInfo[] | undefined {
    const entity = this.#entities.get(command);
    if (entity?.['meta-type'] !== 'command') return undefined;
    return this.#members(entity['arg-type']).map(({ name = '', type, ...rest }) => ({
      name,
      optional: 'default' in rest,
      type: this.#describe(type),
    }));
  }

  /**
   * Completes a line of the prompt: the command, then keys and values inside its JSON.
   *
   * @returns the candidates, and the end of the line that each of them replaces.
   */
  complete(line: string, extraCommands: readonly string[] = []): [string[], string] {
    const [, command, json] = /^\s*(\S+)\s+(.*)$/s.exec(line) ?? [];
    if (command === undefined || json === undefined) {
      return startingWith([...extraCommands, ...this.commands], line.trimStart());
    }
    if (command === 'help') return startingWith(this.commands, json);
    const entity = this.#entities.get(command);
    if (entity?.['meta-type'] !== 'command') return [[], json];
    if (json === '') return [['{'], ''];
    return this.#completeJson(entity['arg-type'], json);
  }

  #completeJson(argType: string | undefined, json: string): [string[], string] {
    const place = findPlace(json);
    if (!place) return [[], json];
    const owner = place.path.reduce(
      (type, key) => this.#members(type).find(({ name }) => name === key)?.type,
      argType,
    );
    if (place.key === undefined) {
      const keys = this.#members(owner).flatMap(({ name }) =>
        name === undefined || place.used.includes(name) ? [] : [`"${name}": `],
      );
      return startingWith([...new Set(keys)], place.fragment);
    }
    const member = this.#members(owner).find(({ name }) => name === place.key);
    return startingWith(this.#values(member?.type), place.fragment);
  }

  /** The members of an object, those of all its variants too; through arrays and alternates. */
  #members(type: string | undefined): NonNullable<Entity['members']> {
    const entity = type === undefined ? undefined : this.#entities.get(type);
    switch (entity?.['meta-type']) {
      case 'array':
        return this.#members(entity['element-type']);
      case 'alternate':
        return (entity.members ?? []).flatMap((member) => this.#members(member.type));
      case 'object': {
        const own = entity.members ?? [];
        const variants = (entity.variants ?? []).flatMap((variant) => this.#members(variant.type));
        const names = new Set<string | undefined>();
        return [...own, ...variants].filter(({ name }) => !names.has(name) && names.add(name));
      }
      default:
        return [];
    }
  }

  /** What JSON a value may start with, where the choice is small. */
  #values(type: string | undefined): string[] {
    const entity = type === undefined ? undefined : this.#entities.get(type);
    switch (entity?.['meta-type']) {
      case 'enum':
        return (entity.values ?? []).map((value) => `"${value}"`);
      case 'alternate':
        return (entity.members ?? []).flatMap((member) => this.#values(member.type));
      case 'object':
        return ['{'];
      case 'array':
        return ['['];
      default:
        return entity?.['json-type'] === 'boolean' ? ['true', 'false'] : [];
    }
  }

  #describe(type: string): string {
    const entity = this.#entities.get(type);
    switch (entity?.['meta-type']) {
      case 'enum': {
        const values = entity.values ?? [];
        const more = values.length > MAX_SHOWN_VALUES ? '|…' : '';
        return `${values.slice(0, MAX_SHOWN_VALUES).join('|')}${more}`;
      }
      case 'array':
        return `[${this.#describe(entity['element-type'] ?? '')}]`;
      case 'alternate':
        return (entity.members ?? []).map((member) => this.#describe(member.type)).join(' or ');
      case 'object':
        return 'object';
      default:
        return entity?.['json-type'] ?? 'value';
    }
  }
}

/** Where in unfinished JSON the cursor stands. */
interface Place {
  /** Keys from the outermost object to the one at the cursor; arrays add none. */
  path: string[];
  /** The key whose value is due; undefined where a key is due. */
  key: string | undefined;
  /** What was written of the key or value. */
  fragment: string;
  /** Keys that this object already has. */
  used: string[];
}

/** A level of nesting: the key under way, and those before it. */
interface Level {
  key: string | undefined;
  used: string[];
  isArray: boolean;
}

/** Reads JSON that breaks off; undefined where neither key nor value is due. */
function findPlace(json: string): Place | undefined {
  const levels: Level[] = [];
  let last = '';
  let fragment = '';
  for (const [token] of json.matchAll(/"(?:[^"\\]|\\.)*"?|[{}[\]:,]|[^\s{}[\]:,"]+/g)) {
    const level = levels.at(-1);
    fragment = '';
    if (token === '{' || token === '[') {
      levels.push({ key: undefined, used: [], isArray: token === '[' });
    } else if (token === '}' || token === ']') levels.pop();
    else if (token === ',' && level && !level.isArray) level.key = undefined;
    else if (token === ':' && level) {
      level.key = last.replaceAll('"', '');
      level.used.push(level.key);
    } else if (token !== ',') fragment = token;
    last = token;
  }
  const level = levels.at(-1);
  if (!level || level.isArray || last === '}' || last === ']') return undefined;
  if (/\s$/.test(json) && fragment !== '') return undefined;
  const path = levels.slice(0, -1).flatMap(({ key }) => (key === undefined ? [] : [key]));
  return { path, key: level.key, fragment, used: level.used };
}

function startingWith(candidates: readonly string[], start: string): [string[], string] {
  return [candidates.filter((candidate) => candidate.startsWith(start)), start];
}
