/**
 * How QEMU reads and writes a VM's disk. By io_uring(7) it does so where it stands; by threads each request is
 * handed to another thread and back. Loading a snapshot is thousands of small reads, one after the other: 80 ms
 * by io_uring, 390 by threads, of 150 MiB that are in the page cache. Linux's own AIO (`native`) wants a disk
 * that is opened past the page cache, which all clones of a template share.
 */
import { execa } from 'execa';

/** Value of `aio=` of QEMU's `file` driver. */
export type DiskAio = 'io_uring' | 'threads';

/** It takes 25 ms on an idle machine. */
const TIMEOUT_MS = 10_000;
const QUIT = ['qmp_capabilities', 'quit'].map((execute) => JSON.stringify({ execute })).join('\n');

/**
 * Has QEMU open a file by io_uring. What may speak against it (a QEMU built without, a kernel without,
 * `kernel.io_uring_disabled`, the seccomp filter of a container) is all in its answer.
 * @param path of the program
 * @returns why it cannot; undefined where it can. Never throws
 */
export async function ioUringObstacle(path: string): Promise<string | undefined> {
  const file = ['driver=file', 'node-name=probe', 'read-only=on', 'aio=io_uring'];
  const argv = [
    ...['-M', 'none', '-S', '-nodefaults', '-no-user-config', '-display', 'none', '-qmp', 'stdio'],
    ...['-blockdev', [...file, 'filename=/proc/self/exe'].join(',')], // any file that is there
  ];
  const { failed, stderr, shortMessage } = await execa(path, argv, {
    reject: false,
    input: `${QUIT}\n`,
    timeout: TIMEOUT_MS,
  });
  if (!failed) return undefined;
  return stderr.trim().split('\n').at(-1) || (shortMessage ?? 'it does not start');
}

/** What disks are read and written by on this host. Never throws. */
export async function bestAio(path: string): Promise<DiskAio> {
  return (await ioUringObstacle(path)) === undefined ? 'io_uring' : 'threads';
}
