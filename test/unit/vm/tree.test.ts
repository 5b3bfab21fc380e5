import { describe, expect, it } from 'vitest';
import { linesOf } from '../../../src/cli/commands/tree.ts';
import { buildTree, type TreeParts } from '../../../src/vm/tree.ts';

const BASE = { name: 'base', id: 'b', rootfsPath: '/i/rootfs' };
type Vms = TreeParts['vms'];

function vm(id: string, ...diskPaths: string[]): Vms[number] {
  const template = diskPaths.length === 0 ? undefined : { diskPaths };
  const config = { image: 'base', imageId: 'b', rootfsPath: '/i/rootfs', template };
  return { record: { id, config }, state: 'running' } as unknown as Vms[number];
}

const TEMPLATES = [
  { diskPath: '/t', manifest: { name: 'node', id: 't', backingPaths: ['/i/rootfs'] } },
];
const CHECKPOINTS = [{ id: 'c', diskPath: '/c', forkedFrom: 'clone' }];
const draw = (parts: Partial<TreeParts>) =>
  buildTree({ images: [BASE], templates: TEMPLATES, vms: [], checkpoints: [], ...parts }).flatMap(
    linesOf,
  );

describe('the tree', () => {
  it('has each thing under what it stands on, children of a fork under the VM', () => {
    const clone = vm('clone', '/t', '/i/rootfs');
    const children = ['x', 'y'].map((id) => vm(id, '/c', '/t', '/i/rootfs'));
    expect(draw({ vms: [vm('plain'), clone, ...children], checkpoints: CHECKPOINTS })).toEqual([
      'base  b  image',
      '├── node  t  template',
      '│   └── clone  running',
      '│       └── c  checkpoint',
      '│           ├── x  running',
      '│           └── y  running',
      '└── plain  running',
    ]);
  });

  it('keeps a checkpoint whose VM is gone, and an image that was built anew', () => {
    const old = { ...vm('old').record, config: { ...vm('old').record.config, imageId: 'a' } };
    const odd = { ...old, config: { ...old.config, rootfsPath: '/i/older' } };
    const vms = [vm('x', '/c', '/t', '/i/rootfs'), { record: odd, state: 'stopped' as const }];
    expect(draw({ vms, checkpoints: CHECKPOINTS })).toEqual([
      'base  b  image',
      '└── node  t  template',
      '    └── c  checkpoint',
      '        └── x  running',
      'base  a  image',
      '└── old  stopped',
    ]);
  });
});
