/** What QEMU says about its own commands, for completion and help at the QMP prompt. */

import type { QmpReturn } from '../../qmp/index.ts';

type Entity = QmpReturn<'query-qmp-schema'>[number];
type Member = Extract<Entity, { 'meta-type': 'object' }>['members'][number];

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

  constructor(schema: readonly Entity[]) {
    this.#entities = new Map(schema.map((entity) => [entity.name, entity]));
    this.commands = schema
      .filter((entity) => entity['meta-type'] === 'command')
      .map(({ name }) => name)
      .sort();
  }

  /** The arguments of a command; undefined where there is no such command. */
  arguments(command: string): ArgumentInfo[] | undefined {
    const entity = this.#entities.get(command);
    if (entity?.['meta-type'] !== 'command') return undefined;
    const taken = this.#entity(entity['arg-type']);
    const common = taken?.['meta-type'] === 'object' ? taken.members : [];
    return this.#members(entity['arg-type']).map((member) => ({
      name: member.name,
      // What only some variants take is not always needed.
      optional: 'default' in member || !common.includes(member),
      type: this.#describe(member.type),
    }));
  }

  /**
   * Completes a line of the prompt: `help` or the command, then keys and values inside its JSON.
   *
   * @returns the candidates, and the end of the line that each of them replaces.
   */
  complete(line: string): [string[], string] {
    const [, command, json] = /^\s*(\S+)\s+(.*)$/s.exec(line) ?? [];
    if (command === undefined || json === undefined) {
      return startingWith(
        ['help ', ...this.commands.map((name) => this.#word(name))],
        line.trimStart(),
      );
    }
    if (command === 'help') return startingWith(this.commands, json);
    const entity = this.#entities.get(command);
    if (entity?.['meta-type'] !== 'command') return [[], json];
    if (json === '') return [this.#members(entity['arg-type']).length > 0 ? ['{'] : [], ''];
    return this.#completeJson(entity['arg-type'], json);
  }

  /** A command as it is typed: a space where arguments may follow. */
  #word(command: string): string {
    return this.arguments(command)?.length === 0 ? command : `${command} `;
  }

  #completeJson(argType: string, json: string): [string[], string] {
    const place = findPlace(json);
    if (!place) return [[], json];
    const typeOf = (owner: string | undefined, key: string): string | undefined =>
      this.#members(owner).find(({ name }) => name === key)?.type;
    const owner = place.path.reduce<string | undefined>(typeOf, argType);
    if (place.key !== undefined) {
      return startingWith(this.#values(typeOf(owner, place.key)), place.fragment);
    }
    const keys = this.#members(owner).filter(({ name }) => !place.used.includes(name));
    return startingWith(
      keys.map(({ name }) => `"${name}": `),
      place.fragment,
    );
  }

  #entity(type: string | undefined): Entity | undefined {
    return type === undefined ? undefined : this.#entities.get(type);
  }

  /** The members of an object, those of all its variants too; through arrays and alternates. */
  #members(type: string | undefined): Member[] {
    const entity = this.#entity(type);
    switch (entity?.['meta-type']) {
      case 'array':
        return this.#members(entity['element-type']);
      case 'alternate':
        return entity.members.flatMap((member) => this.#members(member.type));
      case 'object': {
        const variants = (entity.variants ?? []).flatMap((variant) => this.#members(variant.type));
        // Of members that several variants have, the first.
        const byName = new Map<string, Member>();
        for (const member of [...entity.members, ...variants]) {
          if (!byName.has(member.name)) byName.set(member.name, member);
        }
        return [...byName.values()];
      }
      case undefined:
      case 'builtin':
      case 'enum':
      case 'command':
      case 'event':
        return [];
    }
  }

  /** What JSON a value may start with, where the choice is small. */
  #values(type: string | undefined): string[] {
    const entity = this.#entity(type);
    switch (entity?.['meta-type']) {
      case 'enum':
        return entity.members.map(({ name }) => `"${name}"`);
      case 'alternate':
        return entity.members.flatMap((member) => this.#values(member.type));
      case 'object':
        return ['{'];
      case 'array':
        return ['['];
      case 'builtin':
        return entity['json-type'] === 'boolean' ? ['true', 'false'] : [];
      case undefined:
      case 'command':
      case 'event':
        return [];
    }
  }

  #describe(type: string): string {
    const entity = this.#entity(type);
    switch (entity?.['meta-type']) {
      case 'enum': {
        const values = entity.members.map(({ name }) => name);
        const more = values.length > MAX_SHOWN_VALUES ? '|…' : '';
        return `${values.slice(0, MAX_SHOWN_VALUES).join('|')}${more}`;
      }
      case 'array':
        return `[${this.#describe(entity['element-type'])}]`;
      case 'alternate':
        return entity.members.map((member) => this.#describe(member.type)).join(' or ');
      case 'builtin':
        return entity['json-type'];
      case undefined:
      case 'object':
      case 'command':
      case 'event':
        return 'object';
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
