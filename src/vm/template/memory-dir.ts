/**
 * A directory of its own for the memory of templates: on a tmpfs, where it is in the host's memory
 * without a copy on a disk; on hugetlbfs; or on another disk. In the template's directory a symbolic link stands for
 * it, which is there before the file is, and goes after it: so nothing is left that nobody knows of.
 */
import { readFile, readlink, rm, stat, statfs, symlink } from 'node:fs/promises';
import { basename, dirname, isAbsolute, join } from 'node:path';
import { formatBytes } from '../../config/units.ts';
import { ConfigError, HostError } from '../../errors.ts';
import { checkOwner, stateFault } from '../state-dir.ts';
import { heldBytes } from '../snapshot-space.ts';
import { templateFiles } from './manifest.ts';

/** `statfs(2)`, linux/magic.h. */
export const HUGETLBFS = 0x9584_58f6;
const TMPFS = 0x0102_1994;
const MIB = 2 ** 20;
const FILE_NAME = /^qmp-agent-[0-9a-f]{12}\.memory$/;

/** What kind of place it is. */
export type MemoryMedium = 'tmpfs' | 'hugetlbfs' | 'disk';

/** Where the memory of a template is, where it has a place of its own. */
export interface MemoryPlace {
  readonly dir: string;
  /** Undefined: the directory is gone. */
  readonly medium: MemoryMedium | undefined;
}

/**
 * Looks whether memory of so many bytes can be put there.
 * @throws ConfigError no directory; StateDirError others may write there; HostError ERR_HOST_DISK_FULL
 */
export async function checkMemoryDir(dir: string, memoryBytes: number): Promise<void> {
  const facts = await stat(dir).catch(() => undefined);
  if (!isAbsolute(dir) || facts?.isDirectory() !== true) {
    throw new ConfigError(`${JSON.stringify(dir)} is no directory for the memory of templates`, {
      field: 'state.memoryDir',
      value: dir,
      hint: 'Give the absolute path of a directory that exists, e.g. /dev/shm.',
    });
  }
  await checkOwner(dir);
  const { type, bsize } = await statfs(dir);
  if (type !== HUGETLBFS) return;
  if (memoryBytes % bsize !== 0) {
    throw new ConfigError(
      `memory of ${formatBytes(memoryBytes)} is no multiple of the huge pages of ${formatBytes(bsize)} in ${dir}`,
      {
        field: 'vm.memoryMib',
        value: memoryBytes / MIB,
        hint: `Give a multiple of ${Math.ceil(bsize / MIB)} MiB, or another state.memoryDir.`,
      },
    );
  }
  await requireHugePages(bsize, memoryBytes, 'the template');
}

/**
 * Looks before memory is written, or, on hugetlbfs, mapped.
 * @param pid of the QEMU whose memory it is
 * @throws HostError ERR_HOST_DISK_FULL
 */
export async function requireMemoryRoom(
  dir: string,
  o: { pid: number; memoryBytes: number },
): Promise<void> {
  const { type, bsize, bavail } = await statfs(dir);
  if (type === HUGETLBFS) return requireHugePages(bsize, o.memoryBytes, 'the template');
  const needed = Math.min(await heldBytes(o.pid), o.memoryBytes);
  const free = bavail * bsize;
  if (free >= needed) return;
  throw new HostError(
    'ERR_HOST_DISK_FULL',
    `the memory of the template does not fit into ${dir}: it may take ${formatBytes(needed)}, and ${formatBytes(free)} are free`,
    {
      hint: 'Free space there, make the tmpfs larger, or set state.memoryDir to another directory.',
    },
  );
}

/**
 * A private mapping of a file of huge pages has as many set aside for it as it is long: without, a guest
 * that writes would be killed where none is left.
 * @throws HostError ERR_HOST_DISK_FULL
 */
export async function requirePagesForClone(memoryPath: string, memoryBytes: number): Promise<void> {
  const { type, bsize } = await statfs(memoryPath);
  if (type === HUGETLBFS) await requireHugePages(bsize, memoryBytes, 'a clone');
}

async function requireHugePages(pageBytes: number, bytes: number, who: string): Promise<void> {
  const dir = `/sys/kernel/mm/hugepages/hugepages-${pageBytes / 1024}kB`;
  const count = async (name: string) =>
    Number(await readFile(join(dir, name), 'latin1').catch(() => '0'));
  const free = (await count('free_hugepages')) - (await count('resv_hugepages'));
  const needed = bytes / pageBytes;
  if (free >= needed) return;
  throw new HostError(
    'ERR_HOST_DISK_FULL',
    `there are too few huge pages of ${formatBytes(pageBytes)} for ${who}: ${needed} needed, ${Math.max(0, free)} free`,
    {
      hint: `Set more aside (as root: echo N > ${dir}/nr_hugepages), remove clones, or put the memory elsewhere (state.memoryDir).`,
    },
  );
}

/**
 * Puts the link into a template's directory.
 * @returns the path of the memory, which is not there yet
 * @throws StateDirError
 */
export async function linkMemory(
  templateDir: string,
  memoryDir: string,
  id: string,
): Promise<string> {
  const path = join(memoryDir, `qmp-agent-${id}.memory`);
  const link = templateFiles(templateDir).memoryPath;
  await symlink(path, link).catch((error: unknown) => {
    throw stateFault(error, link);
  });
  return path;
}

/** The directory that a template's memory is in; undefined: its own. */
export async function memoryDirOf(templateDir: string): Promise<string | undefined> {
  const target = await linkedMemory(templateDir);
  return target === undefined ? undefined : dirname(target);
}

/** As {@link memoryDirOf}, and what kind of place that is. */
export async function memoryPlaceOf(templateDir: string): Promise<MemoryPlace | undefined> {
  const dir = await memoryDirOf(templateDir);
  if (dir === undefined) return undefined;
  const facts = await statfs(dir).catch(() => undefined);
  if (facts === undefined) return { dir, medium: undefined };
  const { type } = facts;
  return { dir, medium: type === TMPFS ? 'tmpfs' : type === HUGETLBFS ? 'hugetlbfs' : 'disk' };
}

/** Removes a template's directory, half made or whole, with its memory, wherever that is. */
export async function removeWithMemory(templateDir: string): Promise<void> {
  const target = await linkedMemory(templateDir);
  if (target !== undefined) await rm(target, { force: true });
  await rm(templateDir, { recursive: true, force: true, maxRetries: 2 });
}

/** Nothing but what is ours by its name: it will be removed one day. */
async function linkedMemory(templateDir: string): Promise<string | undefined> {
  const target = await readlink(templateFiles(templateDir).memoryPath).catch(() => undefined);
  return target !== undefined && FILE_NAME.test(basename(target)) ? target : undefined;
}
