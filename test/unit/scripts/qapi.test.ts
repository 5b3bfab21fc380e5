import { describe, expect, it } from 'vitest';
import { differences } from '../../../scripts/qapi/differences.ts';
import { emitFiles } from '../../../scripts/qapi/emit.ts';
import { mergeSchemas } from '../../../scripts/qapi/merge.ts';
import { Schema } from '../../../scripts/qapi/schema.ts';
import type { SchemaEntity, SchemaMember } from '../../../scripts/qapi/schema.ts';

const object = (
  name: string,
  members: SchemaMember[],
  more: { tag?: string; variants?: { case: string; type: string }[] } = {},
): SchemaEntity => ({ name, 'meta-type': 'object', members, ...more });
const command = (name: string, args = '0', ret = '0'): SchemaEntity => ({
  name,
  'meta-type': 'command',
  'arg-type': args,
  'ret-type': ret,
});
const event = (name: string, args = '0'): SchemaEntity => ({
  name,
  'meta-type': 'event',
  'arg-type': args,
});
const enumeration = (name: string, ...values: string[]): SchemaEntity => ({
  name,
  'meta-type': 'enum',
  values,
  members: values.map((value) => ({ name: value })),
});
const array = (element: string): SchemaEntity => ({
  name: `[${element}]`,
  'meta-type': 'array',
  'element-type': element,
});
const must = (name: string, type: string): SchemaMember => ({ name, type });
const may = (name: string, type: string): SchemaMember => ({ name, type, default: null });

/** What every schema has. */
const BASE: SchemaEntity[] = [
  object('0', []),
  { name: 'str', 'meta-type': 'builtin', 'json-type': 'string' },
  { name: 'int', 'meta-type': 'builtin', 'json-type': 'int' },
  { name: 'any', 'meta-type': 'builtin', 'json-type': 'value' },
];

/** Generates from one list of entities for each version. */
function generate(versions: Record<string, SchemaEntity[]>) {
  const schemas = Object.entries(versions).map(
    ([version, entities]) => new Schema(version, [...BASE, ...entities]),
  );
  const model = mergeSchemas(schemas);
  const files = emitFiles(model);
  const text = [...files].map(([, file]) => file.replace(/^\/\/.*\n/, '')).join('');
  return { model, files, text };
}

describe('names', () => {
  it('come from where a type is first used, by the shortest way', () => {
    const { text } = generate({
      '7.2': [
        command('add-thing', '1', '[2]'),
        object('1', [must('kind', '3'), must('deep', '4')]),
        array('2'),
        object('2', [must('kind', '3')]),
        enumeration('3', 'a', 'b-c'),
        object('4', [must('deeper', '5')]),
        object('5', [must('x', 'int')]),
        command('query-other', '0', '5'),
      ],
    });
    expect(text).toContain("export type AddThingKind =\n  | 'a'\n  | 'b-c';");
    expect(text).toContain('export interface AddThingReturnItem {\n  kind: AddThingKind;\n}');
    expect(text).toContain('export interface QueryOtherReturn {\n  x: number;\n}');
    expect(text).toContain('export interface AddThingDeep {\n  deeper: QueryOtherReturn;\n}');
    expect(text).toContain(
      "'add-thing': {\n    arguments: AddThingArguments;\n    return: AddThingReturnItem[];",
    );
  });

  it('are numbered where two places would give the same', () => {
    const { text } = generate({
      '7.2': [
        command('a-b', '1'),
        object('1', [must('c-d', '2')]),
        object('2', [must('x', 'int')]),
        command('a', '3'),
        object('3', [must('b-c-d', '4')]),
        object('4', [must('y', 'int')]),
      ],
    });
    expect(text).toContain('export interface ABCD {\n  y: number;\n}');
    expect(text).toContain('export interface ABCD2 {\n  x: number;\n}');
  });

  it('survive a type that contains itself', () => {
    const { text } = generate({
      '7.2': [command('walk', '0', '1'), object('1', [may('next', '1'), must('v', 'any')])],
    });
    expect(text).toContain(
      'export interface WalkReturn {\n  next?: WalkReturn | undefined;\n  v: unknown;\n}',
    );
  });
});

describe('shapes', () => {
  it('make a flat union of variants, values without members among them', () => {
    const { text } = generate({
      '7.2': [
        command('open', '1'),
        object('1', [must('driver', '2'), may('name', 'str')], {
          tag: 'driver',
          variants: [{ case: 'file', type: '3' }],
        }),
        enumeration('2', 'file', 'null'),
        object('3', [must('path', 'str')]),
      ],
    });
    expect(text).toContain(
      'export interface OpenArgumentsCommon {\n  name?: string | undefined;\n}',
    );
    expect(text.replace(/\s+/g, ' ')).toContain(
      "export type OpenArguments = OpenArgumentsCommon & ( | ({ driver: | 'file'; } & OpenFile) | ({ driver: | 'null'; }) );",
    );
  });

  it('make a union of an alternate', () => {
    const { text } = generate({
      '7.2': [
        command('open', '1'),
        object('1', [must('file', '2')]),
        { name: '2', 'meta-type': 'alternate', members: [{ type: 'str' }, { type: '3' }] },
        object('3', [must('path', 'str')]),
      ],
    });
    expect(text).toContain('export type OpenFile = string | OpenFileObject;');
  });

  it('leave device_add open', () => {
    const entities = [command('device_add', '1'), object('1', [must('driver', 'str')])];
    const { text } = generate({ '7.2': entities });
    expect(text).toContain('  driver: string;\n  [property: string]: unknown;\n}');
  });

  it('are the same whatever the masked names are', () => {
    const [a, b] = [
      [command('x', '7'), object('7', [must('m', '9')]), enumeration('9', 'v')],
      [enumeration('4', 'v'), object('2', [must('m', '4')]), command('x', '2')],
    ].map((entities) => generate({ '7.2': entities ?? [] }).text);
    expect(a).toBe(b);
  });
});

describe('versions', () => {
  const OLD = [
    command('both', '1', '2'),
    object('1', [must('always', 'str'), may('old', 'str'), must('kind', '3')]),
    object('2', [must('gone', 'int'), must('stays', 'int')]),
    enumeration('3', 'a'),
    command('removed'),
    event('STAYS', '4'),
    object('4', [must('n', 'int')]),
    event('LEFT'),
  ];
  const NEW = [
    command('both', '11', '12'),
    object('11', [must('always', 'str'), may('new', 'int'), must('kind', '13'), may('sub', '14')]),
    object('12', [must('stays', 'str')]),
    enumeration('13', 'a', 'b'),
    object('14', [may('always', 'str'), may('inner', 'str')]),
    command('added', '14'),
    event('STAYS', '15'),
    object('15', [must('n', 'int'), must('m', 'int')]),
    event('CAME'),
  ];
  const { text, model } = generate({ '7.2': OLD, '10.0': NEW });

  it('say what came and what went', () => {
    expect(text).toContain('/** Up to QEMU 7.2, not after. */\n  old?: string | undefined;');
    expect(text).toContain('/** In QEMU 10.0, not before. */\n  new?: number | undefined;');
    expect(text).toContain("/** In QEMU 10.0, not before. */\n  | 'b'");
    expect(text).toContain('/** Up to QEMU 7.2, not after. */\n  removed: {');
    expect(text).toContain('/** In QEMU 10.0, not before. */\n  CAME: undefined;');
  });

  it('make a member optional that one lacks, and a union of what they disagree on', () => {
    expect(text).toContain('gone?: number | undefined;');
    expect(text).toContain('stays: number | string;');
    expect(text).toContain('m?: number | undefined;');
    expect(text).toContain('  always: string;');
  });

  it('tell differences apart by command, at any depth', () => {
    expect(Object.fromEntries(differences(model))).toEqual({
      CAME: { from: '10.0' },
      LEFT: { until: '7.2' },
      added: { from: '10.0' },
      removed: { until: '7.2' },
      'both.b': { from: '10.0' },
      'both.new': { from: '10.0' },
      'both.old': { until: '7.2' },
      'both.sub': { from: '10.0' },
    });
  });

  it('mark what is deprecated or unstable', () => {
    const marked = generate({
      '7.2': [{ ...command('x-odd'), features: ['unstable'] }],
      '10.0': [{ ...command('x-odd'), features: ['unstable', 'deprecated'] }],
    });
    expect(marked.text).toContain(
      '/** Unstable: may change in any version. Deprecated in QEMU 10.0. */',
    );
  });

  it('refuse a schema that points nowhere', () => {
    expect(() => generate({ '7.2': [command('x', '99')] })).toThrow('schema of QEMU 7.2 has no 99');
  });
});

describe('files', () => {
  it('import one way: topics, shared, enums', () => {
    const { files } = generate({
      '7.2': [
        command('blockdev-x', '1'),
        command('query-block-x', '0', '2'),
        object('1', [must('shared', '2'), must('own', '3')]),
        object('2', [must('kind', '4')]),
        object('3', [must('kind', '4')]),
        enumeration('4', 'v'),
      ],
    });
    const imports = (name: string): string[] =>
      [...(files.get(name) ?? '').matchAll(/from '\.\/(.*)'/g)].map(([, from]) => from ?? '');
    expect([...files.keys()].sort()).toEqual([
      'availability.ts',
      'commands.ts',
      'enums.ts',
      'events.ts',
      'shared.ts',
      'types-block.ts',
    ]);
    expect(imports('types-block.ts')).toEqual(['enums.ts', 'shared.ts']);
    expect(imports('shared.ts')).toEqual(['enums.ts']);
    expect(imports('enums.ts')).toEqual([]);
  });
});
