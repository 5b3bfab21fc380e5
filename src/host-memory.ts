/** What the host's memory has room for. */
import { readFile } from 'node:fs/promises';

/** What QEMU takes besides the guest's memory. */
export const QEMU_OVERHEAD_BYTES = 200 * 2 ** 20;

/** `MemAvailable` of /proc/meminfo, in bytes (proc_meminfo(5)); undefined where it cannot be told. */
export async function availableMemoryBytes(): Promise<number | undefined> {
  return kibField(await readFile('/proc/meminfo', 'utf8').catch(() => ''), 'MemAvailable');
}

/**
 * Memory of a process that the kernel cannot get back while it lives: anonymous and shared pages, in
 * bytes (proc_pid_status(5)). Pages of files count as available. 0 where there is no such process.
 */
export async function pinnedMemoryBytes(pid: number): Promise<number> {
  const status = await readFile(`/proc/${pid}/status`, 'utf8').catch(() => '');
  return (kibField(status, 'RssAnon') ?? 0) + (kibField(status, 'RssShmem') ?? 0);
}

function kibField(text: string, name: string): number | undefined {
  const kib = new RegExp(`^${name}:\\s+(\\d+) kB`, 'm').exec(text)?.[1];
  return kib === undefined ? undefined : Number(kib) * 1024;
}
