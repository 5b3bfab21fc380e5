import { describe, expect, it } from 'vitest';
import { lineOf } from '../../../../src/cli/commands/diff.ts';
import {
  findCheckpoint,
  parentOf,
  requireRelated,
  type World,
} from '../../../../src/vm/diff/checkpoints.ts';

const ROOT = '/i/rootfs';

function vm(id: string, name: string | undefined, ...diskPaths: string[]): World['vms'][number] {
  const template = diskPaths.length === 0 ? undefined : { diskPaths };
  const config = { image: 'base', imageId: 'b0', rootfsPath: ROOT, template };
  return { record: { id, name, config }, state: 'running' } as unknown as World['vms'][number];
}

const WORLD: World = {
  images: [
    { name: 'base', id: 'b0', rootfsPath: ROOT },
    { name: 'other', id: 'b1', rootfsPath: '/i/other' },
  ],
  templates: [{ diskPath: '/t', manifest: { name: 'node', id: 'aa01', backingPaths: [ROOT] } }],
  vms: [vm('aa02', 'node'), vm('aa03', 'work', '/t', ROOT), vm('c4', undefined, '/c', '/t', ROOT)],
  checkpoints: [{ id: 'c5', diskPath: '/c', forkedFrom: 'aa03' }],
  diskOf: (id) => `/v/${id}`,
};

const paths = (word: string) => findCheckpoint(word, WORLD).layers.map(({ path }) => path);
const parent = (word: string) => parentOf(findCheckpoint(word, WORLD), WORLD);

describe('a checkpoint', () => {
  it('is named by name, id, prefix, kind, or as a snapshot', () => {
    expect(paths('work')).toEqual(['/v/aa03', '/t', ROOT]);
    expect(paths('aa03')).toEqual(['/v/aa03', '/t', ROOT]);
    expect(paths('c5')).toEqual(['/c', '/t', ROOT]);
    expect(paths('template:node')).toEqual(['/t', ROOT]);
    expect(paths('vm:node')).toEqual(['/v/aa02', ROOT]);
    expect(paths('base')).toEqual([ROOT]);
    const snapshot = findCheckpoint('node@then', WORLD); // of the VM: templates have none
    expect(snapshot.ref).toEqual({ kind: 'vm', id: 'aa02', name: 'node', snapshot: 'then' });
    expect(snapshot.layers).toEqual([{ path: '/v/aa02', snapshot: 'then' }, { path: ROOT }]);
  });

  it('is refused where it is none, or one of several', () => {
    const refusal = (word: string) => {
      try {
        return findCheckpoint(word, WORLD);
      } catch (error) {
        return error;
      }
    };
    expect(refusal('node')).toMatchObject({ candidates: ['template:node', 'vm:node'] });
    expect(refusal('aa')).toMatchObject({
      candidates: ['template:node', 'vm:node', 'vm:work'],
    });
    for (const word of ['', 'nobody', 'vm:base', 'ff', '@then'])
      expect(refusal(word)).toMatchObject({ code: 'ERR_NOT_FOUND' });
    for (const word of ['disk:node', 'template:node@then'])
      expect(refusal(word)).toMatchObject({ code: 'ERR_CONFIG', value: word });
  });

  it('stands on another, and an image on nothing', () => {
    expect(parent('c4').ref).toEqual({ kind: 'checkpoint', id: 'c5' });
    expect(parent('c5').ref).toMatchObject({ kind: 'template', name: 'node' });
    expect(parent('work@then').ref).toMatchObject({ kind: 'template', name: 'node' });
    expect(parent('template:node').ref).toMatchObject({ kind: 'image', name: 'base' });
    expect(() => parent('base')).toThrow('stands on nothing');
  });

  it('is compared with one of the same image alone', () => {
    const [work, base, other] = ['work', 'base', 'other'].map((word) =>
      findCheckpoint(word, WORLD),
    );
    if (!work || !base || !other) throw new Error('not found');
    requireRelated(base, work);
    expect(() => requireRelated(other, work)).toThrow('image other and VM work');
  });
});

describe('a line of diff', () => {
  it('is one line, whatever the path is', () => {
    expect(lineOf({ kind: 'added', path: '/plain path/ü' })).toBe('A /plain path/ü');
    expect(lineOf({ kind: 'changed', path: '/a\nD /b' })).toBe(String.raw`C "/a\nD /b"`);
    expect(lineOf({ kind: 'deleted', path: '/\x1b[2J"\\' })).toBe(String.raw`D "/\033[2J\"\\"`);
    expect(lineOf({ kind: 'added', path: '/\u202etxt' })).toBe(String.raw`A "/\342\200\256txt"`);
    const odd = { path: '/\ufffd', pathBase64: Buffer.from('/\xff', 'latin1').toString('base64') };
    expect(lineOf({ kind: 'added', ...odd })).toBe(String.raw`A "/\377"`);
  });
});
