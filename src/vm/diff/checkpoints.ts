/** What a user may name as one side of a diff: images, templates, VMs, their snapshots, points of forks. */
import { ConfigError, DiffError, NotFoundError } from '../../errors.ts';
import type { DiskLayer } from '../../storage/index.ts';
import { disksUnder, type TreeParts } from '../tree.ts';
import type { CheckpointRef } from './types.ts';

/** Kinds of checkpoints; with a colon, they may stand before a name. */
const KINDS: readonly string[] = ['vm', 'template', 'image', 'checkpoint'];

/** One side of a diff, and the files of its disk. */
export interface Checkpoint {
  readonly ref: CheckpointRef;
  /** The uppermost first, the image's last. */
  readonly layers: readonly [DiskLayer, ...DiskLayer[]];
}

/** What there is, and where the disks of VMs are. */
export interface World extends TreeParts {
  readonly diskOf: (vmId: string) => string;
}

interface Candidate extends Checkpoint {
  readonly names: readonly (string | undefined)[];
}

/**
 * What a word means: the name or id of something, a unique prefix of an id, `KIND:NAME`, or `VM@SNAPSHOT`.
 * Pure.
 * @throws NotFoundError nothing, or several things
 */
export function findCheckpoint(word: string, world: World): Checkpoint {
  const [, kind, rest = '', snapshot] = /^(?:([a-z]+):)?([^@]*)(?:@(.*))?$/s.exec(word) ?? [];
  if (kind !== undefined && !KINDS.includes(kind)) {
    throw new ConfigError(`${JSON.stringify(kind)} is no kind of checkpoint`, {
      field: 'diff',
      value: word,
      hint: `Write ${KINDS.map((one) => `${one}:NAME`).join(', ')}, or a name alone.`,
    });
  }
  const wanted = snapshot === undefined ? kind : 'vm';
  if (kind !== undefined && kind !== wanted) throw noSnapshots(word);
  const all = candidates(world).filter(({ ref }) => wanted === undefined || ref.kind === wanted);
  const exact = all.filter(({ names }) => names.includes(rest));
  const isPrefix = /^[0-9a-f]+$/.test(rest);
  const found =
    exact.length > 0 || !isPrefix ? exact : all.filter(({ ref }) => ref.id.startsWith(rest));
  const [one, ...others] = found;
  if (one === undefined) throw nothing(word);
  if (others.length > 0) throw several(word, found);
  const { ref, layers } = one;
  if (snapshot === undefined) return { ref, layers };
  const [disk, ...below] = layers;
  return { ref: { ...ref, snapshot }, layers: [{ ...disk, snapshot }, ...below] };
}

/** What a checkpoint stands on. Pure. @throws ConfigError it is an image, which stands on nothing */
export function parentOf({ ref, layers }: Checkpoint, world: World): Checkpoint {
  const [, parent, ...below] = layers;
  if (parent === undefined) {
    throw new ConfigError(`image ${ref.name ?? ref.id} stands on nothing`, {
      field: 'diff',
      value: ref.name ?? ref.id,
      hint: 'Name two things to compare: `qmp-agent diff IMAGE VM`.',
    });
  }
  const known = candidates(world).find(({ layers: [disk] }) => disk.path === parent.path);
  if (known !== undefined) return { ref: known.ref, layers: [parent, ...below] };
  const vm = world.vms.find(({ record }) => record.config.rootfsPath === parent.path);
  const id = vm?.record.config.imageId ?? '';
  return { ref: { kind: 'image', id, name: vm?.record.config.image }, layers: [parent, ...below] };
}

/** Pure. @throws DiffError ERR_DIFF_UNRELATED the two stand on different images */
export function requireRelated(before: Checkpoint, after: Checkpoint): void {
  const [one, other] = [before.layers.at(-1), after.layers.at(-1)];
  if (one?.path === other?.path) return;
  throw new DiffError(
    'ERR_DIFF_UNRELATED',
    `${describeRef(before.ref)} and ${describeRef(after.ref)} stand on different images`,
    { hint: 'Compare what goes back to one image: see `qmp-agent tree`.' },
  );
}

/** In words. Pure. */
export function describeRef({ kind, id, name, snapshot }: CheckpointRef): string {
  const of = snapshot === undefined ? '' : `snapshot ${snapshot} of `;
  return `${of}${kind === 'vm' ? 'VM' : kind} ${name ?? id}`;
}

function candidates(world: World): Candidate[] {
  const { images, templates, vms, checkpoints, diskOf } = world;
  const layersOf = (...paths: [string, ...string[]]) =>
    paths.map((path): DiskLayer => ({ path })) as [DiskLayer, ...DiskLayer[]];
  return [
    ...images.map(({ id, name, rootfsPath }): Candidate => {
      return { ref: { kind: 'image', id, name }, names: [name, id], layers: layersOf(rootfsPath) };
    }),
    ...templates.map(({ diskPath, manifest: { id, name, backingPaths } }): Candidate => {
      const layers = layersOf(diskPath, ...backingPaths);
      return { ref: { kind: 'template', id, name }, names: [name, id], layers };
    }),
    ...vms.map(({ record: { id, name, config } }): Candidate => {
      const below = config.template?.diskPaths ?? [config.rootfsPath];
      const layers = layersOf(diskOf(id), ...below);
      return { ref: { kind: 'vm', id, name }, names: [name, id], layers };
    }),
    ...checkpoints.map(({ id, diskPath }): Candidate => {
      const layers = layersOf(diskPath, ...disksUnder(diskPath, vms));
      return { ref: { kind: 'checkpoint', id }, names: [id], layers };
    }),
  ];
}

function nothing(word: string): NotFoundError {
  return new NotFoundError(
    `there is no VM, template, image or checkpoint ${JSON.stringify(word)}`,
    {
      kind: 'checkpoint',
      query: word,
      hint: 'See what there is with `qmp-agent tree`; snapshots are named VM@SNAPSHOT.',
    },
  );
}

function several(word: string, found: readonly Candidate[]): NotFoundError {
  const names = found.map(({ ref: { kind, id, name } }) => `${kind}:${name ?? id}`);
  return new NotFoundError(`${JSON.stringify(word)} fits ${found.length} things`, {
    kind: 'checkpoint',
    query: word,
    candidates: names,
    hint: `Say which: ${names.join(', ')}.`,
  });
}

function noSnapshots(word: string): ConfigError {
  return new ConfigError(`${JSON.stringify(word)} names a snapshot of what has none`, {
    field: 'diff',
    value: word,
    hint: 'Only VMs have snapshots: write VM@SNAPSHOT.',
  });
}
