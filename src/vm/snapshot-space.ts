/** Whether a snapshot, or a template, finds space: on the host's disk, and within the VM's quota. */
import { readFile } from 'node:fs/promises';
import { formatBytes } from '../config/units.ts';
import { DiskQuotaError, HostError } from '../errors.ts';
import { usedBytes } from '../storage/index.ts';
import { freeBytes, NEARLY_FULL_BYTES } from './disk-quota.ts';

/** What is saved. */
type Saved = 'snapshot' | 'template';

/** A VM's disk, where a snapshot of it is saved. */
export interface SnapshotPlace {
  readonly vmId: string;
  readonly dir: string;
  readonly diskPath: string;
  readonly quotaBytes: number | undefined;
}

/**
 * Looks before a snapshot is taken: one that fails half-way leaves a disk so full that the guest stops at
 * its next write. No snapshot holds more memory than its QEMU does.
 * @param pid of its QEMU
 * @throws HostError ERR_HOST_DISK_FULL, DiskQuotaError
 */
export async function requireSpace(place: SnapshotPlace, pid: number): Promise<void> {
  const status = await readFile(`/proc/${pid}/status`, 'latin1').catch(() => '');
  const needed = Number(/^VmRSS:\s+(\d+) kB$/m.exec(status)?.[1] ?? 0) * 1024;
  const left = (free: number) =>
    `it may take ${formatBytes(needed)}, and ${formatBytes(free)} are free`;
  const free = freeBytes(place.dir);
  if (free < needed) throw noSpace('snapshot', left(free));
  const { quotaBytes } = place;
  if (quotaBytes === undefined) return;
  const room = Math.max(0, quotaBytes - (await usedBytes(place.diskPath)));
  if (room < needed) throw overQuota(place, quotaBytes, left(room));
}

/** Why a snapshot could not be saved: of a full disk QEMU says no more than "Input/output error". */
export async function explainSnapshotFailure(
  place: SnapshotPlace,
  error: unknown,
): Promise<unknown> {
  const { dir, quotaBytes, diskPath } = place;
  if (freeBytes(dir) < NEARLY_FULL_BYTES) return isFull('snapshot', error);
  if (quotaBytes === undefined) return error;
  const room = quotaBytes - (await usedBytes(diskPath));
  return room < NEARLY_FULL_BYTES ? overQuota(place, quotaBytes, 'it is full', error) : error;
}

/** As {@link explainSnapshotFailure}, of what is saved to a file of its own. */
export function explainSaveFailure(what: Saved, dir: string, error: unknown): unknown {
  return freeBytes(dir) < NEARLY_FULL_BYTES ? isFull(what, error) : error;
}

function isFull(what: Saved, cause: unknown): HostError {
  return noSpace(what, 'the host’s disk is full', cause);
}

function noSpace(what: Saved, why: string, cause?: unknown): HostError {
  return new HostError('ERR_HOST_DISK_FULL', `the ${what} cannot be saved: ${why}`, {
    hint: `Free space where the VM’s disk is, or delete ${what}s you no longer need.`,
    cause,
  });
}

function overQuota(
  { vmId }: SnapshotPlace,
  quotaBytes: number,
  why: string,
  cause?: unknown,
): DiskQuotaError {
  const quota = formatBytes(quotaBytes);
  return new DiskQuotaError(
    `the snapshot cannot be saved within the disk quota of ${quota} of VM ${vmId}: ${why}`,
    {
      vmId,
      quotaBytes,
      hint: `Delete a snapshot that you no longer need (\`qmp-agent snapshot list ${vmId}\`), or make a VM with a larger --disk-quota.`,
      cause,
    },
  );
}
