/** On the schema of QEMU 7.2 as the repository keeps it. */
import { beforeAll, describe, expect, it } from 'vitest';
import type { QmpReturn } from '../../../qmp/index.ts';
import { keptSchemas } from '../../../scripts/generate-qapi.ts';
import { CommandIndex } from '../../../src/cli/qmp-completion.ts';

let index: CommandIndex;
beforeAll(async () => {
  const schema = (await keptSchemas()).find(({ version }) => version === '7.2');
  const entities = [...(schema?.entities.values() ?? [])];
  index = new CommandIndex(entities as QmpReturn<'query-qmp-schema'>);
});

describe('complete', () => {
  it.each<[line: string, candidates: string[], replaced: string]>([
    ['query-sta', ['query-stats ', 'query-stats-schemas ', 'query-status'], 'query-sta'],
    ['  stop', ['stop'], 'stop'],
    ['he', ['help '], 'he'],
    ['xyz', [], 'xyz'],
    ['help query-sp', ['query-spice'], 'query-sp'],
    ['job-cancel ', ['{'], ''],
    ['stop ', [], ''],
    ['xyz ', [], ''],
    ['job-cancel {', ['"id": '], ''],
    ['job-cancel { ', ['"id": '], ''],
    ['job-cancel {"i', ['"id": '], '"i'],
    ['job-cancel {"id"', ['"id": '], '"id"'],
    ['job-cancel {"id": ', [], ''],
    ['job-cancel {"id": "x"', [], '"x"'],
    ['job-cancel {"id": "x", ', [], ''],
    ['job-cancel {"id": "x"}', [], '{"id": "x"}'],
    ['set_password {"protocol": ', ['"vnc"', '"spice"'], ''],
    ['set_password {"protocol": "v', ['"vnc"'], '"v'],
    ['set_password {"connected":', ['"keep"', '"fail"', '"disconnect"'], ''],
    ['query-named-block-nodes {"flat": ', ['true', 'false'], ''],
    ['query-named-block-nodes {"flat": t', ['true'], 't'],
    // Members of one variant, past those that are there already.
    ['blockdev-add {"driver": "qcow2", "lazy', ['"lazy-refcounts": '], '"lazy'],
    ['blockdev-add {"node-name": "a:{,", "node-n', [], '"node-n'],
    // Into objects, alternates and arrays.
    ['blockdev-add {"file": ', ['{'], ''],
    ['blockdev-add {"file": {"dri', ['"driver": '], '"dri'],
    ['blockdev-add {"file": {"driver": "fi', ['"file"'], '"fi'],
    ['blockdev-add {"cache": {"direct": true, "no', ['"no-flush": '], '"no'],
    ['migrate-set-capabilities {"capabilities": ', ['['], ''],
    ['migrate-set-capabilities {"capabilities": [', [], '{"capabilities": ['],
    ['migrate-set-capabilities {"capabilities": [{"', ['"capability": ', '"state": '], '"'],
    [
      'migrate-set-capabilities {"capabilities": [{"state": true, "capability": "x-i',
      ['"x-ignore-shared"'],
      '"x-i',
    ],
    [
      'migrate-set-capabilities {"capabilities": [{"state": true}, {"',
      ['"capability": ', '"state": '],
      '"',
    ],
    ['job-cancel }', [], '}'],
    ['job-cancel {"id": {"x', [], '"x'],
  ])('%s', (line, candidates, replaced) => {
    expect(index.complete(line)).toEqual([candidates, replaced]);
  });

  it('offers all where nothing is typed', () => {
    const [candidates] = index.complete('');
    expect(candidates).toHaveLength(index.commands.length + 1);
  });
});

describe('arguments', () => {
  it('tells names, types and what may be left out', () => {
    expect(index.arguments('set_password')).toEqual([
      { name: 'protocol', type: 'vnc|spice', optional: false },
      { name: 'password', type: 'string', optional: false },
      { name: 'connected', type: 'keep|fail|disconnect', optional: true },
      { name: 'display', type: 'string', optional: true },
    ]);
    expect(index.arguments('stop')).toEqual([]);
    expect(index.arguments('xyz')).toBeUndefined();
    // A type is no command.
    expect(index.arguments('str')).toBeUndefined();
  });

  it('cuts long choices, and calls what only some variants take optional', () => {
    const args = index.arguments('blockdev-add') ?? [];
    const named = (name: string) => args.find((argument) => argument.name === name);
    expect(named('driver')?.type).toMatch(/^(\S+\|){8}…$/);
    expect(named('driver')?.optional).toBe(false);
    expect(named('filename')).toEqual({ name: 'filename', type: 'string', optional: true });
    expect(named('file')?.type).toBe('object or string');
    expect(new Set(args.map(({ name }) => name)).size).toBe(args.length);
  });
});
