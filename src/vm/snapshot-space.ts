/** Whether a snapshot, template or checkpoint finds space on the host's disk. */
import { readFile, statfs } from 'node:fs/promises';
import { formatBytes } from '../config/units.ts';
import { HostError } from '../errors.ts';

/** What is saved. */
type Saved = 'snapshot' | 'template' | 'checkpoint';

/** With less than this free, a write that failed did so for want of space. */
export const NEARLY_FULL_BYTES = 1024 * 1024;

/**
 * Looks before a snapshot is taken: one that fails half-way leaves a disk so full that the guest stops at
 * its next write. No snapshot holds more memory than its QEMU does.
 * @param dir where the VM's disk is
 * @param pid of its QEMU
 * @throws HostError ERR_HOST_DISK_FULL
 */
export async function requireSpace(
  dir: string,
  pid: number,
  what: Saved = 'snapshot',
): Promise<void> {
  const needed = await heldBytes(pid);
  const free = await freeBytes(dir);
  if (free >= needed) return;
  throw noSpace(what, `it may take ${formatBytes(needed)}, and ${formatBytes(free)} are free`);
}

/** Why something could not be saved: of a full disk QEMU says no more than "Input/output error". */
export async function explainSaveFailure(
  what: Saved,
  dir: string,
  error: unknown,
): Promise<unknown> {
  const isFull = (await freeBytes(dir)) < NEARLY_FULL_BYTES;
  return isFull ? noSpace(what, 'the host’s disk is full', error) : error;
}

/** Memory that a process holds. @param fields of /proc/PID/status (proc(5)), added up */
export async function heldBytes(pid: number, fields = ['VmRSS']): Promise<number> {
  const status = await readFile(`/proc/${pid}/status`, 'latin1').catch(() => '');
  const kib = (field: string) =>
    Number(new RegExp(`^${field}:\\s+(\\d+) kB$`, 'm').exec(status)?.[1] ?? 0);
  return fields.reduce((sum, field) => sum + kib(field), 0) * 1024;
}

/** What a file system has left for this user. */
export async function freeBytes(dir: string): Promise<number> {
  const { bavail, bsize } = await statfs(dir);
  return bavail * bsize;
}

function noSpace(what: Saved, why: string, cause?: unknown): HostError {
  return new HostError('ERR_HOST_DISK_FULL', `the ${what} cannot be saved: ${why}`, {
    hint: `Free space where the VM’s disk is, or delete ${what}s you no longer need.`,
    cause,
  });
}
