import { describe, expect, it } from 'vitest';
import { descendants, parseStat, type ProcessEntry } from '../../../guest-agent/process-tree.ts';

describe('parseStat', () => {
  it.each([
    ['42 (bash) S 1 42 41 0 -1 4194304', { pid: 42, parent: 1, session: 41, state: 'S' }],
    ['7 (a b) R 3 7 7 0', { pid: 7, parent: 3, session: 7, state: 'R' }],
    ['8 (evil) S 1 1 1) Z 5 8 6 0', { pid: 8, parent: 5, session: 6, state: 'Z' }],
    ['9 (((())) S 2 9 9 0', { pid: 9, parent: 2, session: 9, state: 'S' }],
  ])('%s', (text, entry) => {
    expect(parseStat(text)).toEqual(entry);
  });
});

describe('descendants', () => {
  const entry = (pid: number, parent: number, state = 'S'): ProcessEntry => ({
    ...{ pid, parent, state },
    session: pid,
  });

  it('finds children whatever the order of the list', () => {
    const processes = [entry(30, 20), entry(20, 10), entry(10, 1), entry(40, 1), entry(1, 0)];
    expect(descendants(processes, [10]).sort()).toEqual([10, 20, 30]);
  });

  it('leaves out zombies, but not what descends from them', () => {
    const processes = [entry(10, 1), entry(20, 10, 'Z'), entry(30, 20)];
    expect(descendants(processes, [10])).toEqual([10, 30]);
  });

  it('names nobody who is gone', () => {
    expect(descendants([entry(1, 0)], [77])).toEqual([]);
  });
});
