import { describe, expect, it } from 'vitest';
import { ConfigError, NotFoundError } from '../../../src/errors.ts';
import { checkVmName, isVmId, newCid, newVmId, resolveVm } from '../../../src/vm/ids.ts';

const vms = [
  { id: 'aaaa00000001', name: 'web' },
  { id: 'aaaa00000002', name: undefined },
  { id: 'bbbb00000003', name: 'aaaa' },
  { id: 'cccc00000004', name: 'feed' },
  { id: 'feed00000005' },
];
const found = (query: string) => resolveVm(query, vms).id;
const failure = (query: string): NotFoundError => {
  try {
    found(query);
  } catch (error) {
    return error as NotFoundError;
  }
  throw new Error(`${query} was found`);
};

describe('ids', () => {
  it('are 12 hex digits, and all different', () => {
    const ids = Array.from({ length: 100 }, newVmId);
    expect(ids.every(isVmId)).toBe(true);
    expect(new Set(ids).size).toBe(100);
  });

  it.each(['', 'abc', '0123456789AB', '0123456789abc', '../../etc/pas'])('are not %j', (text) =>
    expect(isVmId(text)).toBe(false),
  );

  it('CIDs are none that the kernel reserves', () => {
    for (let i = 0; i < 1_000; i += 1) {
      expect(newCid()).toBeGreaterThan(2);
      expect(newCid()).toBeLessThan(0xffff_ffff);
    }
  });
});

describe('resolveVm', () => {
  it('finds by id, by name and by a prefix that fits one', () => {
    expect(found('aaaa00000002')).toBe('aaaa00000002');
    expect(found('web')).toBe('aaaa00000001');
    expect(found('b')).toBe('bbbb00000003');
  });

  it('prefers a name to a prefix', () => {
    expect(found('aaaa')).toBe('bbbb00000003');
    expect(found('feed')).toBe('cccc00000004');
  });

  it('names the candidates where a prefix fits several', () => {
    const error = failure('aaa');
    expect(error).toBeInstanceOf(NotFoundError);
    expect(error).toMatchObject({
      code: 'ERR_NOT_FOUND',
      kind: 'vm',
      query: 'aaa',
      candidates: ['aaaa00000001', 'aaaa00000002'],
    });
    expect(error.hint).toContain('aaaa00000002');
  });

  it.each(['', 'zzz', 'we', 'aaaa00000001x'])('finds nothing for %j', (query) => {
    expect(failure(query)).toMatchObject({ code: 'ERR_NOT_FOUND', candidates: [] });
  });
});

describe('checkVmName', () => {
  it.each(['a', 'Box', 'my_vm-1.test', 'a'.repeat(63)])('takes %j', (name) =>
    expect(() => checkVmName(name)).not.toThrow(),
  );

  it.each(['', '1a', '-x', '.', 'a b', 'a/b', 'ä', 'a'.repeat(64), 'abcdef012345', 'a\n'])(
    'refuses %j and names the field',
    (name) => {
      expect(() => checkVmName(name)).toThrow(ConfigError);
      expect(() => checkVmName(name)).toThrow(
        expect.objectContaining({ field: 'vm.name', value: name }) as Error,
      );
    },
  );
});
