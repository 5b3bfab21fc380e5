/**
 * The bound on what a VM's disk takes on the host.
 *
 * QEMU enforces it: between the overlay's qcow2 and its file stands a raw layer of a fixed size
 * (`argv.ts`), so that an allocation past it fails with ENOSPC, as on a full disk. QEMU stops the
 * vCPUs then and says no more than that there is no space; whose fault that is, is told here.
 */
import { statfsSync } from 'node:fs';
import { formatBytes } from '../config/units.ts';
import { DiskQuotaError } from '../errors.ts';
import { usedBytes } from '../storage/index.ts';
import { heldBytes, NEARLY_FULL_BYTES } from './snapshot-space.ts';

/** What bounds a VM's disk. */
export interface DiskBounds {
  readonly vmId: string;
  /** The overlay. */
  readonly path: string;
  /** Undefined: the host's disk alone. */
  readonly quotaBytes: number | undefined;
}

/** With what else QEMU was told of its layers, and has to be told again with each change of one. */
export interface DiskLayers extends DiskBounds {
  /** The guest's flushes go no further than to the host's memory. */
  readonly noFlush: boolean;
}

/** Why a write to a VM's disk found no space: its quota, or (undefined) the host's disk. */
export function reachedQuota({ vmId, path, quotaBytes }: DiskBounds): DiskQuotaError | undefined {
  if (quotaBytes === undefined || isHostFull(path)) return undefined;
  return new DiskQuotaError(
    `VM ${vmId} is paused: its disk has reached its quota of ${formatBytes(quotaBytes)}`,
    {
      vmId,
      quotaBytes,
      hint: `Delete snapshots of it (\`qmp-agent snapshot delete ${vmId} NAME\`) or raise the quota (\`qmp-agent disk quota ${vmId} SIZE\`), then \`qmp-agent resume ${vmId}\`.`,
    },
  );
}

/**
 * Looks whether the quota has room for a snapshot, as `requireSpace` does on the host's disk.
 * @param pid of the VM's QEMU
 * @throws DiskQuotaError
 */
export async function requireRoom(disk: DiskBounds, pid: number): Promise<void> {
  const { path, quotaBytes } = disk;
  if (quotaBytes === undefined) return;
  const needed = await heldBytes(pid);
  const room = Math.max(0, quotaBytes - (await usedBytes(path)));
  if (room >= needed) return;
  const why = `it may take ${formatBytes(needed)}, and ${formatBytes(room)} are left`;
  throw noRoom({ ...disk, quotaBytes }, why);
}

/** Why a snapshot could not be saved, where that is the quota; else undefined. */
export async function explainByQuota(
  disk: DiskBounds,
  error: unknown,
): Promise<DiskQuotaError | undefined> {
  const { path, quotaBytes } = disk;
  if (quotaBytes === undefined || isHostFull(path)) return undefined;
  const room = quotaBytes - (await usedBytes(path));
  return room < NEARLY_FULL_BYTES
    ? noRoom({ ...disk, quotaBytes }, 'it is full', error)
    : undefined;
}

function isHostFull(path: string): boolean {
  try {
    const { bavail, bsize } = statfsSync(path); // one call into the kernel, in the midst of an event
    return bavail * bsize < NEARLY_FULL_BYTES;
  } catch {
    return true; // the VM was removed meanwhile: no matter of its quota
  }
}

function noRoom(
  { vmId, quotaBytes }: DiskBounds & { quotaBytes: number },
  why: string,
  cause?: unknown,
): DiskQuotaError {
  const quota = formatBytes(quotaBytes);
  return new DiskQuotaError(
    `the snapshot cannot be saved within the disk quota of ${quota} of VM ${vmId}: ${why}`,
    {
      vmId,
      quotaBytes,
      hint: `Delete a snapshot that you no longer need (\`qmp-agent snapshot list ${vmId}\`), or raise the quota: \`qmp-agent disk quota ${vmId} SIZE\`.`,
      cause,
    },
  );
}
