/** What stands on what: images, templates, VMs, and the checkpoints at which VMs were forked. */
import type { StatePaths, VmState } from './api.ts';
import { checkpointFiles, checkpointIds, originalOf } from './fork/checkpoint.ts';
import { reapAbandoned } from './gc.ts';
import { openImageStore } from './image-store.ts';
import type { VmRecord } from './record.ts';
import { templateFiles, type TemplateManifest } from './template/manifest.ts';
import { TemplateStore } from './template/store.ts';
import { observeState } from './vm-info.ts';

/** One thing, and what stands on it or came from it. */
export interface TreeNode {
  readonly kind: 'image' | 'template' | 'vm' | 'checkpoint';
  /** 12 hex digits. */
  readonly id: string;
  readonly name?: string | undefined;
  /** Of a VM. */
  readonly state?: VmState | undefined;
  /** Of a checkpoint: id of the VM that was forked, which may be gone. */
  readonly forkedFrom?: string | undefined;
  readonly children: readonly TreeNode[];
}

/** What {@link buildTree} puts together. */
export interface TreeParts {
  readonly images: readonly { name: string; id: string; rootfsPath: string }[];
  readonly templates: readonly {
    readonly diskPath: string;
    readonly manifest: Pick<TemplateManifest, 'name' | 'id' | 'backingPaths'>;
  }[];
  readonly vms: readonly {
    readonly record: Pick<VmRecord, 'id' | 'name' | 'config'>;
    readonly state: VmState;
  }[];
  readonly checkpoints: readonly { id: string; diskPath: string; forkedFrom: string | undefined }[];
}

/** The tree of a state directory; its roots are images. */
export async function readTree(paths: StatePaths): Promise<TreeNode[]> {
  return buildTree(await readTreeParts(paths));
}

/** All that may stand on something, or be stood on. */
export async function readTreeParts(paths: StatePaths): Promise<TreeParts> {
  const store = new TemplateStore(paths);
  const [images, infos, { entries }] = await Promise.all([
    openImageStore(paths).list(),
    store.list(),
    reapAbandoned(paths),
  ]);
  const whole = infos.filter(({ defect }) => defect === undefined);
  const templates = await Promise.all(
    whole.map(async ({ name }) => {
      const { manifest, dir } = await store.get(name);
      return { diskPath: templateFiles(dir).diskPath, manifest };
    }),
  );
  const vms = entries.flatMap(({ record }) =>
    record === undefined ? [] : [{ record, state: observeState(record).state }],
  );
  return { images, templates, vms, checkpoints: await checkpointsOf(paths, vms) };
}

/** Those that VMs stand on; there are no others. */
async function checkpointsOf(
  paths: StatePaths,
  vms: TreeParts['vms'],
): Promise<TreeParts['checkpoints']> {
  const disks = new Set(vms.flatMap(({ record }) => record.config.template?.diskPaths ?? []));
  const ids = await checkpointIds(paths);
  return Promise.all(
    ids
      .map((id) => ({ id, diskPath: checkpointFiles(paths, id).diskPath }))
      .filter(({ diskPath }) => disks.has(diskPath))
      .map(async (one) => ({ ...one, forkedFrom: await originalOf(paths, one.id) })),
  );
}

/** Each thing under what its disk stands on; a checkpoint under the VM it is of, where that is there. Pure. */
export function buildTree({ images, templates, vms, checkpoints }: TreeParts): TreeNode[] {
  const children = new Map<string, TreeNode[]>();
  const below = (key: string): TreeNode[] => {
    const found = children.get(key) ?? [];
    children.set(key, found);
    return found;
  };
  const roots = new Map<string, TreeNode>();
  const addImage = (image: { name: string; id: string; rootfsPath: string }) => {
    if (roots.has(image.rootfsPath)) return;
    const { name, id, rootfsPath } = image;
    roots.set(rootfsPath, { kind: 'image', id, name, children: below(rootfsPath) });
  };
  images.forEach(addImage);
  for (const { record } of vms) {
    const { image: name, imageId: id, rootfsPath } = record.config;
    addImage({ name, id, rootfsPath }); // an earlier version of an image that was built anew
  }
  for (const { diskPath, manifest } of templates) {
    const { id, name, backingPaths } = manifest;
    below(backingPaths[0] ?? '').push({ kind: 'template', id, name, children: below(diskPath) });
  }
  for (const { record, state } of vms) {
    const { id, name, config } = record;
    const [on = config.rootfsPath] = config.template?.diskPaths ?? [];
    below(on).push({ kind: 'vm', id, name, state, children: below(`vm ${id}`) });
  }
  const known = new Set(vms.map(({ record }) => record.id));
  for (const { id, diskPath, forkedFrom } of checkpoints) {
    const node: TreeNode = { kind: 'checkpoint', id, forkedFrom, children: below(diskPath) };
    const isThere = forkedFrom !== undefined && known.has(forkedFrom);
    below(isThere ? `vm ${forkedFrom}` : diskUnder(diskPath, vms)).push(node);
  }
  return [...roots.values()];
}

/** The disk on which this one stands, as the VMs on it have it. */
function diskUnder(diskPath: string, vms: TreeParts['vms']): string {
  return disksUnder(diskPath, vms)[0] ?? '';
}

/** The disks under this one, the nearest first, as the VMs on it have them. */
export function disksUnder(diskPath: string, vms: TreeParts['vms']): readonly string[] {
  for (const { record } of vms) {
    const paths = record.config.template?.diskPaths ?? [];
    const at = paths.indexOf(diskPath);
    if (at >= 0) return at + 1 < paths.length ? paths.slice(at + 1) : [record.config.rootfsPath];
  }
  return [];
}
