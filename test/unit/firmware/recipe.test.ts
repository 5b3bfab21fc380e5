import { describe, expect, it } from 'vitest';
import { BASE_RECIPE } from '../../../firmware/base-recipe.ts';
import { DEFAULT_SIZE_MIB, parseRecipe, recipeHash } from '../../../firmware/recipe.ts';
import { ConfigError } from '../../../src/errors.ts';

describe('parseRecipe', () => {
  it('fills in defaults', () => {
    expect(parseRecipe({ name: 'tiny' })).toEqual({
      name: 'tiny',
      suite: 'trixie',
      packages: [],
      files: [],
      provision: undefined,
      environment: {},
      sizeMib: DEFAULT_SIZE_MIB,
    });
  });

  it('takes a whole recipe', () => {
    const recipe = parseRecipe({
      name: 'web',
      suite: 'bookworm',
      packages: ['nginx', 'libc6:amd64', 'git=1:2.39-1'],
      files: [
        { to: '/etc/motd', content: 'hi\n' },
        { to: '/usr/local/bin/run', from: 'run.sh', mode: '0755', owner: 'agent:agent' },
      ],
      provision: 'true\n',
      environment: { DEBUG: 1, PATH: '/opt/bin:/bin' },
      sizeMib: 4096,
    });
    expect(recipe.files[0]).toMatchObject({ mode: 0o644, owner: 'root:root' });
    expect(recipe.files[1]).toMatchObject({ mode: 0o755, from: 'run.sh' });
    expect(recipe.environment).toEqual({ DEBUG: '1', PATH: '/opt/bin:/bin' });
  });

  it.each<[string, unknown]>([
    ['recipe', []],
    ['name', {}],
    ['name', { name: '../x' }],
    ['name', { name: 'UPPER' }],
    ['suite', { name: 'a', suite: 'x y' }],
    ['pakages', { name: 'a', pakages: [] }],
    ['packages', { name: 'a', packages: 'git' }],
    ['packages[1]', { name: 'a', packages: ['git', '--option'] }],
    ['packages[0]', { name: 'a', packages: ['a,b'] }],
    ['files[0].to', { name: 'a', files: [{ to: 'etc/x', content: '' }] }],
    ['files[0].to', { name: 'a', files: [{ to: '/etc/../x', content: '' }] }],
    ['files[0]', { name: 'a', files: [{ to: '/x' }] }],
    ['files[0]', { name: 'a', files: [{ to: '/x', from: 'a', content: 'b' }] }],
    ['files[0].mode', { name: 'a', files: [{ to: '/x', content: '', mode: '999' }] }],
    ['files[0].owner', { name: 'a', files: [{ to: '/x', content: '', owner: 'a b' }] }],
    ['files[0].mod', { name: 'a', files: [{ to: '/x', content: '', mod: 1 }] }],
    ['environment.A-B', { name: 'a', environment: { 'A-B': 'x' } }],
    ['environment.A', { name: 'a', environment: { A: 'x\ny' } }],
    ['provision', { name: 'a', provision: ['x'] }],
    ['sizeMib', { name: 'a', sizeMib: 10 }],
    ['sizeMib', { name: 'a', sizeMib: '4G' }],
  ])('names the field %s', (field, value) => {
    try {
      parseRecipe(value);
    } catch (error) {
      expect(error).toBeInstanceOf(ConfigError);
      expect((error as ConfigError).field).toBe(field);
      expect((error as ConfigError).hint).toContain(field);
      return;
    }
    expect.unreachable('the recipe was taken');
  });
});

describe('recipeHash', () => {
  it('does not depend on the order of members, but on each value', () => {
    const a = parseRecipe({ name: 'a', environment: { X: '1', Y: '2' } });
    const b = parseRecipe({ environment: { Y: '2', X: '1' }, name: 'a' });
    expect(recipeHash(a, {})).toBe(recipeHash(b, {}));
    expect(recipeHash({ ...a, sizeMib: 4096 }, {})).not.toBe(recipeHash(a, {}));
    expect(recipeHash(a, { certificates: 'x' })).not.toBe(recipeHash(a, {}));
  });

  it('keeps the order of packages and files, which may matter', () => {
    const of = (packages: string[]): string => recipeHash(parseRecipe({ name: 'a', packages }), {});
    expect(of(['git', 'jq'])).not.toBe(of(['jq', 'git']));
  });
});

it('has a base recipe with what coding agents expect', () => {
  expect(BASE_RECIPE.suite).toBe('trixie');
  expect(BASE_RECIPE.packages).toEqual(
    expect.arrayContaining([
      'nodejs',
      'npm',
      'python3-venv',
      'python3-pip',
      'git',
      'ripgrep',
      'jq',
    ]),
  );
});
