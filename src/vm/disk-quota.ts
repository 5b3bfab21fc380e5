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

/** With less than this free, a write that failed did so for want of space on the host. */
export const NEARLY_FULL_BYTES = 1024 * 1024;

/** What bounds a VM's disk. */
export interface DiskBounds {
  /** Where it is. */
  readonly dir: string;
  /** Undefined: the host's disk alone. */
  readonly quotaBytes: number | undefined;
}

/** Why a write to a VM's disk found no space: its quota, or (undefined) the host's disk. */
export function reachedQuota(
  vmId: string,
  { dir, quotaBytes }: DiskBounds,
): DiskQuotaError | undefined {
  if (quotaBytes === undefined || freeBytes(dir) < NEARLY_FULL_BYTES) return undefined;
  return new DiskQuotaError(
    `VM ${vmId} is paused: its disk has reached its quota of ${formatBytes(quotaBytes)}`,
    {
      vmId,
      quotaBytes,
      hint: `Delete snapshots of it (\`qmp-agent snapshot delete ${vmId} NAME\`), then \`qmp-agent resume ${vmId}\`; or remove it and make another with a larger --disk-quota.`,
    },
  );
}

/** What a VM's file system has left, for us. */
export function freeBytes(dir: string): number {
  const { bavail, bsize } = statfsSync(dir); // one call into the kernel, done in the midst of an event
  return bavail * bsize;
}
