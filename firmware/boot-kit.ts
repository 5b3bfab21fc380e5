/**
 * The boot kit: Debian's kernel, its modules and a static busybox, got from signed packages and kept
 * in the cache. Images take from it what they need, so they boot without it afterwards.
 */
import { execa } from 'execa';
import {
  chmod,
  copyFile,
  mkdir,
  readdir,
  readFile,
  rm,
  symlink,
  writeFile,
} from 'node:fs/promises';
import path from 'node:path';
import { BUILD_PATH, findTool, runBuildCommand } from './build-process.ts';
import { hasPvhEntry, kernelPayload, type KernelPayload } from './bzimage.ts';
import { cpioArchive } from './cpio.ts';
import { bootEntries, type BootModule } from './initramfs.ts';
import {
  brokenKit,
  ensureKit,
  extractDebs,
  firstExisting,
  type KitKind,
  type KitOptions,
} from './kit-cache.ts';
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

/** Raised when the layout of a kit or the contents of its boot.cpio change. */
export const KIT_SCHEMA = 4;
const STEP = 'kernel';
/** Largest kernel that we take out of a bzImage; Debian's has 58 MB. */
const MAX_KERNEL_BYTES = 512 * 1024 * 1024;

interface KitFacts {
  readonly schema: number;
  readonly kernelVersion: string;
  readonly kernelFile: 'vmlinux' | 'vmlinuz';
}

const BOOT_KIT: KitKind<KitFacts> = {
  name: 'kit',
  step: STEP,
  schema: KIT_SCHEMA,
  packages: ['kernel:linux-image-amd64', 'busybox-static'],
  closures: ['kmod'],
  assemble,
};

/** The boot kit in the cache: see {@link ensureKit}. */
export async function ensureBootKit(options: KitOptions): Promise<BootKit> {
  const { dir, facts } = await ensureKit(BOOT_KIT, options);
  return {
    dir,
    kernelVersion: facts.kernelVersion,
    kernelPath: path.join(dir, facts.kernelFile),
    bootCpioPath: path.join(dir, 'boot.cpio'),
    modulesTarPath: path.join(dir, 'modules.tar'),
    busyboxPath: path.join(dir, 'busybox'),
  };
}

async function assemble(
  { debs, closure, work, out }: { debs: string; closure: string; work: string; out: string },
  options: KitOptions,
): Promise<{ version: string; facts: KitFacts }> {
  const tree = path.join(work, 'tree');
  const tools = path.join(work, 'tools');
  await extractDebs(debs, tree, options);
  await extractDebs(closure, tools, options);
  const modulesBase = await firstExisting(STEP, [
    path.join(tree, 'usr/lib/modules'),
    path.join(tree, 'lib/modules'),
  ]);
  const [kernelVersion] = await readdir(modulesBase);
  if (kernelVersion === undefined) throw brokenKit(STEP, 'the kernel package has no modules');
  const busybox = await firstExisting(STEP, [
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
  const facts = { schema: KIT_SCHEMA, kernelVersion, kernelFile };
  return { version: kernelVersion, facts };
}

/** depmod of the packages' own, by their own dynamic linker: hosts may lack it or have an older one. */
async function depmod(
  tools: string,
  base: string,
  version: string,
  options: KitOptions,
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
