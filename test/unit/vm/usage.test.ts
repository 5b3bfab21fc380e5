import { describe, expect, it } from 'vitest';
import { reclaimableOf, type Found } from '../../../src/vm/usage/reclaimable.ts';
import type { ImageUsage, VmUsage } from '../../../src/vm/usage/types.ts';

const image = (name: string, change: Partial<ImageUsage> = {}): ImageUsage => ({
  ...{ name, version: 'v', isCurrent: true, usedBytes: 100, usedBy: [] },
  ...change,
});
const vm = (id: string, change: Partial<VmUsage> = {}): VmUsage => ({
  ...{ id, name: undefined, state: 'running', standsOn: 'image base', usedBytes: 50 },
  ...{
    diskBytes: 40,
    quotaBytes: undefined,
    snapshots: [],
    logBytes: 6,
    suspendedBytes: 0,
    otherBytes: 4,
  },
  ...change,
});
const nothing: Found = {
  ...{ images: [], templates: [], vms: [], dead: new Set() },
  cache: { path: '/c', usedBytes: 0 },
};
const commands = (found: Partial<Found>) =>
  reclaimableOf({ ...nothing, ...found }).map(({ command, usedBytes }) => [command, usedBytes]);

describe('what could be had back', () => {
  it('is nothing of what somebody stands on, or runs', () => {
    const images = [image('base', { usedBy: ['box'] })];
    const template = { name: 't', usedBytes: 9, memoryBytes: 8, diskBytes: 1, usedBy: ['box'] };
    expect(commands({ images, templates: [template], vms: [vm('box')] })).toEqual([]);
  });

  it('are images that nobody stands on, and old versions of others', () => {
    const images = [
      image('free'),
      image('free', { isCurrent: false }),
      image('held', { usedBy: ['box'] }),
      image('held', { isCurrent: false, usedBytes: 7 }),
      image('old', { isCurrent: false, usedBy: ['box'] }),
      image('old'), // the next VM stands on it
    ];
    expect(commands({ images })).toEqual([
      ['qmp-agent image remove free', 200],
      ['qmp-agent image prune', 7],
    ]);
  });

  it('are templates without clones, stopped VMs, snapshots of others, dead ones and the cache', () => {
    const snapshots = [{ name: 's', stateBytes: 30 }];
    expect(
      commands({
        templates: [{ name: 't', usedBytes: 9, memoryBytes: 8, diskBytes: 1, usedBy: [] }],
        vms: [
          vm('a', { name: 'runs', snapshots }),
          vm('b', { state: 'stopped', snapshots }),
          vm('c'),
          vm('d', { state: 'broken' }),
        ],
        dead: new Set(['c', 'd']),
        cache: { path: "/c ache/it's", usedBytes: 60 },
      }),
    ).toEqual([
      ['qmp-agent gc', 100],
      [String.raw`rm -r '/c ache/it'\''s'`, 60],
      ['qmp-agent remove b', 50],
      ['qmp-agent snapshot delete runs s', 30],
      ['qmp-agent template remove t', 9],
    ]);
  });
});
