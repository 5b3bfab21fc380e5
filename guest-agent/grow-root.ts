/**
 * Makes the root file system as large as its disk, while it is in use. The kernel does so by itself when
 * it is asked; no program of e2fsprogs is needed, which many images do not have.
 */
import { closeSync, openSync, readFileSync, statfsSync, statSync } from 'node:fs';
import { libc } from './libc.ts';
import { RequestError } from './request-error.ts';

/** Where the init found the root file system. */
const ROOT_DISK = '/sys/class/block/vda';
/** Sizes of block devices in /sys count these, whatever the device's own are. */
const SECTOR_BYTES = 512;

/** @throws RequestError `ENODEV` the root file system is on another disk; LibcError the kernel refuses */
export async function growRoot(): Promise<void> {
  if (!isOn(ROOT_DISK)) throw new RequestError('ENODEV', `/ is not on ${ROOT_DISK}`);
  const diskBytes = Number(readFileSync(`${ROOT_DISK}/size`, 'latin1')) * SECTOR_BYTES;
  const blocks = Math.floor(diskBytes / statfsSync('/').bsize);
  const { growExt4 } = await libc();
  const fd = openSync('/', 'r');
  try {
    await growExt4(fd, blocks); // no more than a look where it has that size
  } finally {
    closeSync(fd);
  }
}

function isOn(disk: string): boolean {
  const { dev } = statSync('/');
  const major = ((dev >>> 8) & 0xfff) | 0; // makedev(3), as far as disks go
  const minor = (dev & 0xff) | ((dev >>> 12) & 0xfff00);
  try {
    return readFileSync(`${disk}/dev`, 'latin1').trim() === `${major}:${minor}`;
  } catch {
    return false;
  }
}
