/** What of all that is on the disk could go, and by which command. Pure. */
import type { DirectoryUsage, DiskUsage, Reclaimable, VmUsage } from './types.ts';

/** What is looked at. */
export interface Found extends Pick<DiskUsage, 'images' | 'templates' | 'vms'> {
  readonly cache: DirectoryUsage;
  /** Ids of VMs whose owners are gone, or whose records are broken: gc takes them. */
  readonly dead: ReadonlySet<string>;
}

/** The ways to get space back, the largest first. */
export function reclaimableOf({ images, templates, vms, cache, dead }: Found): Reclaimable[] {
  const left = vms.filter(({ id }) => dead.has(id));
  const all = [
    ...ofImages(images),
    ...templates
      .filter(({ usedBy }) => usedBy.length === 0)
      .map((one) => by(`template remove ${one.name}`, one.usedBytes)),
    ...vms.filter(({ id }) => !dead.has(id)).flatMap(ofVm),
    by('gc', sum(left)),
    { usedBytes: cache.usedBytes, command: `rm -r ${quoted(cache.path)}` },
  ];
  return all
    .filter(({ usedBytes }) => usedBytes > 0)
    .sort((one, other) => other.usedBytes - one.usedBytes);
}

/** All their bytes. */
export function sum(items: readonly { readonly usedBytes: number }[]): number {
  return items.reduce((total, { usedBytes }) => total + usedBytes, 0);
}

function ofImages(images: DiskUsage['images']): Reclaimable[] {
  const held = new Set(images.flatMap((one) => (one.usedBy.length > 0 ? [one.name] : [])));
  const names = new Set(images.map(({ name }) => name));
  const unused = [...names].filter((name) => !held.has(name));
  const old = images.filter((one) => held.has(one.name) && one.usedBy.length === 0);
  return [
    ...unused.map((name) =>
      by(`image remove ${name}`, sum(images.filter((one) => one.name === name))),
    ),
    by('image prune', sum(old.filter(({ isCurrent }) => !isCurrent))),
  ];
}

/** A VM that is stopped could be removed; of one that runs, what was saved. */
function ofVm({ id, name, state, usedBytes, snapshots }: VmUsage): Reclaimable[] {
  const who = name ?? id;
  if (state === 'stopped') return [by(`remove ${who}`, usedBytes)];
  if (state === 'suspended') return []; // its snapshots can be deleted once it is resumed
  return snapshots.map((one) => by(`snapshot delete ${who} ${one.name}`, one.stateBytes));
}

function by(words: string, usedBytes: number): Reclaimable {
  return { usedBytes, command: `qmp-agent ${words}` };
}

function quoted(path: string): string {
  return /^[\w./-]+$/.test(path) ? path : `'${path.replaceAll("'", String.raw`'\''`)}'`;
}
