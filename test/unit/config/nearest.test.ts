import { describe, expect, it } from 'vitest';
import { editDistance, nearest } from '../../../src/config/nearest.ts';

describe('editDistance', () => {
  it.each([
    ['', '', 0],
    ['abc', 'abc', 0],
    ['', 'abc', 3],
    ['kitten', 'sitting', 3],
    ['memroy', 'memory', 1],
    ['ca', 'abc', 3],
  ])('of %j and %j is %d', (a, b, distance) => {
    expect(editDistance(a, b)).toBe(distance);
    expect(editDistance(b, a)).toBe(distance);
  });
});

describe('nearest', () => {
  it('finds a slip of the fingers, whatever the case', () => {
    expect(nearest('MEMROY', ['vcpus', 'memory'])).toBe('memory');
  });
  it('suggests nothing where nothing is near', () => {
    expect(nearest('xyzzy', ['vcpus', 'memory'])).toBeUndefined();
  });
});
