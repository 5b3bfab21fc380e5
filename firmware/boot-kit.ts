/**
 * The boot kit: Debian's kernel, its modules and a static busybox, got from signed packages and kept
 * in the cache. Images take from it what they need, so they boot without it afterwards.
 */
import { execa } from 'execa';
import { randomBytes } from 'node:crypto';
import {
  chmod,
  copyFile,
  mkdir,
  readdir,
  readFile,
  rename,
  rm,
  stat,
  symlink,
  utimes,
  writeFile,
} from 'node:fs/promises';
import path from 'node:path';
import { ImageError } from '../src/errors.ts';
import { assetPath } from './assets.ts';
import { BUILD_PATH, findTool, runBuildCommand, type BuildLog } from './build-process.ts';
import { hasPvhEntry, kernelPayload, type KernelPayload } from './bzimage.ts';
import { cpioArchive } from './cpio.ts';
import type { HostSettings } from './host-apt.ts';
import { bootEntries, type BootModule } from './initramfs.ts';
import { runMmdebstrap, type BuildMode } from './mmdebstrap.ts';
import { guestModules, loadOrder, moduleName, MODULE_GROUPS, parseModulesDep } from './modules.ts';

/** A kit in the cache. */
export interface BootKit {
  readonly dir: string;
  /** `uname -r`. */
  readonly kernelVersion: string;
  /** ELF vmlinux; bzImage where that could not be had. */
  readonly kernelPath: string;
  /** First part of every initramfs: busybox and the modules that booting needs. */
  readonly bootCpioPath: string;
  /** `lib/modules/<version>` for images, with indexes; root owns all. */
  readonly modulesTarPath: string;
  /** Static busybox. */
  readonly busyboxPath: string;
}

/** What making a kit needs. */
export interface BootKitOptions {
  readonly cacheDir: string;
  readonly mode: BuildMode;
  readonly host: HostSettings;
  readonly log: BuildLog;
  readonly signal?: AbortSignal | undefined;
  readonly onStep?: ((step: string) => void) | undefined;
  /** Ask the archive for a newer kernel even where the cached kit is young. Default false. */
  readonly refresh?: boolean | undefined;
}

/** Raised when the layout of a kit or the contents of its boot.cpio change. */
export const KIT_SCHEMA = 4;
/** A kit is used for so long before the archive is asked for a newer kernel. */
const KIT_MAX_AGE_MS = 30 * 24 * 3600 * 1000;
/** The kernel is Debian 13's whatever the image's suite: one kernel, one set of facts. */
const KERNEL_SUITE = 'trixie';
/** Largest kernel that we take out of a bzImage; Debian's has 58 MB. */
const MAX_KERNEL_BYTES = 512 * 1024 * 1024;

interface KitJson {
  schema: number;
  kernelVersion: string;
  kernelFile: 'vmlinux' | 'vmlinuz';
}

/**
 * The kit in the cache, made or renewed where needed. Call it under a lock: two makers at once do
 * the work twice (and end with the same result).
 * @throws {ImageError} a package cannot be had or is not what it should be
 */
export async function ensureBootKit(options: BootKitOptions): Promise<BootKit> {
  const kitsDir = path.join(options.cacheDir, 'kit');
  const current = await currentKit(kitsDir);
  if (current !== undefined && options.refresh !== true) {
    const age = Date.now() - (await stat(path.join(current.dir, 'kit.json'))).mtimeMs;
    if (age < KIT_MAX_AGE_MS) return current;
  }
  try {
    return await makeKit(kitsDir, options);
  } catch (error) {
    options.signal?.throwIfAborted();
    if (current === undefined || options.refresh === true) throw error;
    options.log.line('# no newer kernel to be had; the cached one is used');
    return current;
  }
}

async function currentKit(kitsDir: string): Promise<BootKit | undefined> {
  const names = await readdir(kitsDir).catch(() => []);
  let newest: { kit: BootKit; mtimeMs: number } | undefined;
  for (const name of names.filter((entry) => !entry.startsWith('.'))) {
    const kit = await readKit(path.join(kitsDir, name));
    if (kit === undefined) continue;
    const { mtimeMs } = await stat(path.join(kit.dir, 'kit.json'));
    if (newest === undefined || mtimeMs > newest.mtimeMs) newest = { kit, mtimeMs };
  }
  return newest?.kit;
}

async function readKit(dir: string): Promise<BootKit | undefined> {
  const text = await readFile(path.join(dir, 'kit.json'), 'utf8').catch(() => '');
  if (text === '') return undefined;
  const json = JSON.parse(text) as KitJson;
  if (json.schema !== KIT_SCHEMA) return undefined;
  return {
    dir,
    kernelVersion: json.kernelVersion,
    kernelPath: path.join(dir, json.kernelFile),
    bootCpioPath: path.join(dir, 'boot.cpio'),
    modulesTarPath: path.join(dir, 'modules.tar'),
    busyboxPath: path.join(dir, 'busybox'),
  };
}

async function makeKit(kitsDir: string, options: BootKitOptions): Promise<BootKit> {
  const work = path.join(kitsDir, `.tmp-${process.pid}-${randomBytes(4).toString('hex')}`);
  await removeStaleWork(kitsDir, options);
  await mkdir(work, { recursive: true });
  try {
    const hook = path.join(work, 'fetch-packages');
    await copyFile(assetPath('hooks/fetch-packages'), hook);
    await chmod(hook, 0o755);
    await writeFile(path.join(work, 'packages'), 'kernel:linux-image-amd64\nbusybox-static\n');
    await writeFile(path.join(work, 'closures'), 'kmod\n');
    if (options.mode === 'unshare') await chmod(work, 0o777);
    await runMmdebstrap({
      ...options,
      suite: KERNEL_SUITE,
      variant: 'custom',
      customizeHooks: [hook],
      workDir: work,
    });
    options.onStep?.('kernel');
    const kit = await assembleKit(work, options);
    const target = path.join(kitsDir, `${kit.kernelVersion}-${KIT_SCHEMA}`);
    const now = new Date();
    await utimes(path.join(work, 'out', 'kit.json'), now, now);
    await rm(target, { recursive: true, force: true });
    await rename(path.join(work, 'out'), target);
    const made = await readKit(target);
    if (made === undefined) throw broken('kit.json cannot be read');
    return made;
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

async function removeStaleWork(kitsDir: string, options: BootKitOptions): Promise<void> {
  const names = await readdir(kitsDir).catch(() => []);
  for (const name of names.filter((entry) => entry.startsWith('.tmp-'))) {
    options.log.line(`# left by a killed build: ${name}`);
    await rm(path.join(kitsDir, name), { recursive: true, force: true });
  }
}

async function assembleKit(work: string, options: BootKitOptions): Promise<KitJson> {
  const out = path.join(work, 'out');
  const tree = path.join(work, 'tree');
  const tools = path.join(work, 'tools');
  await mkdir(out);
  await extractDebs(path.join(work, 'debs'), tree, options);
  await extractDebs(path.join(work, 'closure'), tools, options);
  const modulesBase = await firstExisting([
    path.join(tree, 'usr/lib/modules'),
    path.join(tree, 'lib/modules'),
  ]);
  const [kernelVersion] = await readdir(modulesBase);
  if (kernelVersion === undefined) throw broken('the kernel package has no modules');
  const busybox = await firstExisting([
    path.join(tree, 'usr/bin/busybox'),
    path.join(tree, 'bin/busybox'),
  ]);
  await copyFile(busybox, path.join(out, 'busybox'));
  const kernelFile = await writeKernel(path.join(tree, 'boot', `vmlinuz-${kernelVersion}`), out);
  const modulesDir = path.join(modulesBase, kernelVersion);
  await depmod(tools, path.dirname(modulesBase), kernelVersion, options);
  await writeBootCpio(modulesDir, kernelVersion, out);
  await trimModules(modulesDir);
  await depmod(tools, path.dirname(modulesBase), kernelVersion, options);
  await runBuildCommand({
    step: 'kernel modules',
    argv: [
      ...['tar', '--create', '--file', path.join(out, 'modules.tar'), '--owner=0', '--group=0'],
      ...[
        '--numeric-owner',
        '--sort=name',
        '-C',
        path.dirname(modulesBase),
        `modules/${kernelVersion}`,
      ],
    ],
    log: options.log,
    signal: options.signal,
  });
  const json: KitJson = { schema: KIT_SCHEMA, kernelVersion, kernelFile };
  await writeFile(path.join(out, 'kit.json'), JSON.stringify(json));
  return json;
}

async function extractDebs(from: string, to: string, options: BootKitOptions): Promise<void> {
  await mkdir(to, { recursive: true });
  for (const name of (await readdir(from)).filter((entry) => entry.endsWith('.deb'))) {
    await runBuildCommand({
      step: 'extract',
      argv: ['dpkg-deb', '--extract', path.join(from, name), to],
      log: options.log,
      signal: options.signal,
    });
  }
}

/** depmod of the packages' own, by their own dynamic linker: hosts may lack it or have an older one. */
async function depmod(
  tools: string,
  base: string,
  version: string,
  options: BootKitOptions,
): Promise<void> {
  const root = path.join(path.dirname(tools), 'depmod-root');
  await rm(root, { recursive: true, force: true });
  await mkdir(path.join(root, 'lib'), { recursive: true });
  await symlink(path.join(base, 'modules'), path.join(root, 'lib/modules'));
  const libraries = [
    path.join(tools, 'usr/lib/x86_64-linux-gnu'),
    path.join(tools, 'lib/x86_64-linux-gnu'),
  ];
  await runBuildCommand({
    step: 'kernel modules',
    argv: [
      path.join(tools, 'usr/lib64/ld-linux-x86-64.so.2'),
      ...['--library-path', libraries.join(':'), '--argv0', 'depmod'],
      ...[path.join(tools, 'usr/bin/kmod'), '--basedir', root, version],
    ],
    log: options.log,
    signal: options.signal,
  });
}

async function writeKernel(bzImage: string, out: string): Promise<'vmlinux' | 'vmlinuz'> {
  const image = await readFile(bzImage);
  await writeFile(path.join(out, 'vmlinuz'), image);
  const payload = kernelPayload(image);
  if (payload === undefined || payload.uncompressedBytes > MAX_KERNEL_BYTES) return 'vmlinuz';
  const elf = await decompress(payload);
  if (elf === undefined || !hasPvhEntry(elf)) return 'vmlinuz';
  await writeFile(path.join(out, 'vmlinux'), elf);
  return 'vmlinux';
}

/** Undefined where the host lacks the program; booting from bzImage is slower, but works. */
async function decompress(payload: KernelPayload): Promise<Buffer | undefined> {
  const tool = await findTool(payload.compression);
  if (tool === undefined) return undefined;
  const { stdout, exitCode } = await execa(tool, ['-dc'], {
    input: payload.data,
    encoding: 'buffer',
    reject: false,
    maxBuffer: MAX_KERNEL_BYTES,
    env: { PATH: BUILD_PATH },
  });
  return exitCode === 0 && stdout.length === payload.uncompressedBytes
    ? Buffer.from(stdout)
    : undefined;
}

async function writeBootCpio(modulesDir: string, version: string, out: string): Promise<void> {
  const busybox = path.join(out, 'busybox');
  await chmod(busybox, 0o755);
  const deps = parseModulesDep(await readFile(path.join(modulesDir, 'modules.dep'), 'utf8'));
  const names = Object.values(MODULE_GROUPS).flat();
  const loadable = new Set([...deps.keys()].map(moduleName));
  const builtIn = names.filter((name) => !loadable.has(name));
  const modules: BootModule[] = [];
  for (const file of loadOrder(deps, names)) {
    const data = await readModule(busybox, path.join(modulesDir, file));
    modules.push({
      name: moduleName(file),
      needs: (deps.get(file) ?? []).map(moduleName),
      data,
      late: MODULE_GROUPS.button.includes(moduleName(file)),
    });
  }
  const entries = bootEntries({
    kernelVersion: version,
    busybox: await readFile(busybox),
    modules,
    builtIn,
  });
  await writeFile(path.join(out, 'boot.cpio'), cpioArchive(entries));
}

/** A module's contents, decompressed: the kernel would do it at every boot, under emulation slowly. */
async function readModule(busybox: string, file: string): Promise<Buffer> {
  if (file.endsWith('.ko')) return readFile(file);
  const applet = file.endsWith('.xz') ? 'xzcat' : 'zcat';
  const { stdout } = await execa(busybox, [applet, file], { encoding: 'buffer' });
  return Buffer.from(stdout);
}

async function trimModules(modulesDir: string): Promise<void> {
  const deps = parseModulesDep(await readFile(path.join(modulesDir, 'modules.dep'), 'utf8'));
  const keep = new Set(guestModules(deps));
  await Promise.all(
    [...deps.keys()]
      .filter((file) => !keep.has(file))
      .map((file) => rm(path.join(modulesDir, file), { force: true })),
  );
}

async function firstExisting(paths: readonly string[]): Promise<string> {
  for (const candidate of paths) {
    if (
      await stat(candidate).then(
        () => true,
        () => false,
      )
    )
      return candidate;
  }
  throw broken(`none of ${paths.map((entry) => path.basename(entry)).join(', ')} in the packages`);
}

function broken(why: string): ImageError {
  return new ImageError('ERR_IMAGE_BUILD', `boot kit: ${why}`, {
    step: 'kernel',
    hint: 'Try again; where it stays so, remove the cache directory and report it.',
  });
}
