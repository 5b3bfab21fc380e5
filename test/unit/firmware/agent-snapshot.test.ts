import { runInThisContext } from 'node:vm';
import { describe, expect, it } from 'vitest';
import {
  asDefaultSnapshot,
  snapshotEntries,
  snapshotScript,
} from '../../../firmware/agent-snapshot.ts';

describe('asDefaultSnapshot', () => {
  const blob = Buffer.from('19da430101070000000000000032302e31392e32', 'hex'); // … 20.19.2

  it('changes the type, and neither the rest nor its argument', () => {
    const copy = Buffer.from(blob);
    expect(asDefaultSnapshot(blob).toString('hex')).toBe(
      '19da430100070000000000000032302e31392e32',
    );
    expect(blob).toEqual(copy);
  });

  it.each([
    ['nothing', ''],
    ['another magic', '19da430201'],
    ['another type', '19da430102'],
    ['no more than the magic', '19da4301'],
  ])('refuses %s', (_what, hex) => {
    expect(() => asDefaultSnapshot(Buffer.from(hex, 'hex'))).toThrow('form that is not known');
  });
});

describe('snapshotScript', () => {
  it('leaves Node’s own modules to Node, and loads the native binary where the guest has it', () => {
    const required: string[] = [];
    const opened: string[] = [];
    const result: unknown[] = [];
    const script = snapshotScript(
      'result.push(require("node:fs"), require("./ffi.node").path); // no newline at the end',
    );
    const run = runInThisContext(`(function (require, process, result) {${script}})`) as (
      ...args: unknown[]
    ) => void;
    run(
      (id: string) => (required.push(id), 'builtin'),
      {
        dlopen: (module: { exports: { path?: string } }, path: string) => {
          opened.push(path);
          module.exports.path = path;
        },
      },
      result,
    );
    expect(required).toEqual(['node:fs']);
    expect(opened).toEqual(['/run/qmp-agent/ffi.node']);
    expect(result).toEqual(['builtin', '/run/qmp-agent/ffi.node']);
  });
});

describe('snapshotEntries', () => {
  it.each([
    ['image', '/usr/lib/x86_64-linux-gnu/libnode.so.115\n'],
    ['bundled', '/opt/qmp-agent/lib/libnode.so.115\n'],
  ] as const)('says whose the snapshot is: %s', (node, library) => {
    const entries = snapshotEntries(
      { blob: Buffer.from('b'), libraryHead: Buffer.from('h') },
      node,
    );
    expect(entries.map(({ name, data }) => [name, String(data)])).toEqual([
      ['agent/snapshot', 'b'],
      ['agent/snapshot.library', library],
      ['agent/snapshot.head', 'h'],
    ]);
  });
});
