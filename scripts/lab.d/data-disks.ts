/** Disks that carry the project and what it has built into the lab: ext4, filled without a mount. */
import {
  access,
  cp,
  mkdir,
  mkdtemp,
  readdir,
  realpath,
  rename,
  rm,
  utimes,
} from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { execa } from 'execa';
import { resolvePaths } from '../../src/config/paths.ts';
import { hashListing } from './cache.ts';

/** A disk and where the lab mounts it. */
export interface DataDisk {
  path: string;
  mountPoint: string;
}

/** Free space on each disk; the files are sparse, so it costs nothing until it is used. */
const SLACK_MIB = 8 * 1024;
/** Cached disks of one kind that are kept; older ones belong to past builds. */
const KEPT = 2;
const MAKE_MS = 300_000;

/**
 * Makes the disks for one run. The project's own files are copied each time, which takes a
 * moment; node_modules, the images and the boot files are kept by content.
 *
 * @param root the project's directory
 * @param work a directory of this run, removed by the caller
 */
export async function dataDisks(root: string, cache: string, work: string): Promise<DataDisk[]> {
  const { dataDir, cacheDir } = resolvePaths();
  const disks: DataDisk[] = [
    { path: await projectDisk(root, work), mountPoint: '/project' },
    {
      path: await cachedDisk(cache, 'modules', join(root, 'node_modules')),
      mountPoint: '/project/node_modules',
    },
  ];
  const optional = [
    { name: 'images', from: join(dataDir, 'images'), mountPoint: '/var/lib/qmp-agent/images' },
    {
      name: 'initramfs',
      from: join(cacheDir, 'initramfs'),
      mountPoint: '/var/cache/qmp-agent/initramfs',
    },
  ];
  for (const { name, from, mountPoint } of optional) {
    if (!(await exists(from))) continue;
    disks.push({ path: await cachedDisk(cache, name, from), mountPoint });
  }
  return disks;
}

async function projectDisk(root: string, work: string): Promise<string> {
  const staging = join(work, 'project');
  const { stdout } = await execa(
    'git',
    ['ls-files', '-z', '--cached', '--others', '--exclude-standard'],
    { cwd: root, timeout: 30_000 },
  );
  const files = stdout.split('\0').filter((name) => name !== '');
  if (await exists(join(root, 'dist'))) files.push('dist');
  for (const name of files) {
    const from = join(root, name);
    if (!(await exists(from))) continue; // deleted, not yet committed
    await mkdir(dirname(join(staging, name)), { recursive: true });
    await cp(from, join(staging, name), { recursive: true, verbatimSymlinks: true });
  }
  await mkdir(join(staging, 'node_modules'), { recursive: true });
  const disk = join(work, 'project.ext4');
  await makeDisk(staging, disk);
  return disk;
}

async function cachedDisk(cache: string, name: string, source: string): Promise<string> {
  // In a git worktree node_modules may be a link, of which du and mke2fs would see the link only.
  const from = await realpath(source);
  await mkdir(cache, { recursive: true });
  const path = join(cache, `${name}-${await hashListing(from)}.ext4`);
  if (await exists(path)) {
    const now = new Date();
    await utimes(path, now, now);
    return path;
  }
  const work = await mkdtemp(join(cache, '.new-'));
  try {
    const disk = join(work, 'disk');
    await makeDisk(from, disk);
    await rename(disk, path);
  } finally {
    await rm(work, { recursive: true, force: true });
  }
  await dropOld(cache, name);
  return path;
}

async function dropOld(cache: string, name: string): Promise<void> {
  const { stdout } = await execa('ls', ['-t', cache], { timeout: 10_000 });
  const old = stdout
    .split('\n')
    .filter((file) => file.startsWith(`${name}-`))
    .slice(KEPT);
  for (const file of old) await rm(join(cache, file), { force: true });
}

/** Makes `disk`, an ext4 file system with the files of `from` and some free space. */
async function makeDisk(from: string, disk: string): Promise<void> {
  const { stdout } = await execa('du', ['-sm', from], { timeout: 60_000 });
  const sizeMib = Number.parseInt(stdout, 10) + SLACK_MIB;
  // The journal is small and tables are zeroed now (in a sparse file they are anyway), not by a
  // kernel thread in the lab.
  const features = [
    '-m',
    '0',
    '-J',
    'size=16',
    '-E',
    'lazy_itable_init=0,lazy_journal_init=0,root_owner=0:0',
  ];
  await execa('mke2fs', ['-q', '-F', '-t', 'ext4', ...features, '-d', from, disk, `${sizeMib}M`], {
    env: { PATH: `${process.env['PATH']}:/usr/sbin:/sbin` },
    timeout: MAKE_MS,
  });
}

async function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}

/** Removes everything that the lab has cached. */
export async function cleanCache(cache: string): Promise<string[]> {
  const names = await readdir(cache).catch(() => []);
  await rm(cache, { recursive: true, force: true });
  return names;
}
