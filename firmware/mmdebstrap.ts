/**
 * mmdebstrap: the one place that knows its arguments and its output. As root its namespaces are ours
 * (see `build-process.ts`); without root it maps a range of user ids (`--mode=unshare`).
 */
import { access, chmod, mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { execa } from 'execa';
import { HostError } from '../src/errors.ts';
import {
  BUILD_PATH,
  findTool,
  requireTools,
  runBuildCommand,
  type BuildLog,
} from './build-process.ts';
import type { HostSettings } from './host-apt.ts';
import { sourcesList } from './host-mirror.ts';

/** How mmdebstrap gets the rights to make device nodes and foreign owners. */
export type BuildMode = 'root' | 'unshare';

/** One run of mmdebstrap. */
export interface MmdebstrapOptions {
  readonly mode: BuildMode;
  readonly suite: string;
  /** `custom`: nothing but apt's lists; `apt`: essential packages and apt. */
  readonly variant: 'custom' | 'apt';
  readonly packages?: readonly string[] | undefined;
  /** Lines for dpkg's configuration; they stay in the image. */
  readonly dpkgOptions?: readonly string[] | undefined;
  /** Executable files, run with the rootfs's directory as argument: once the essential packages are in … */
  readonly essentialHooks?: readonly string[] | undefined;
  /** … and once all are. */
  readonly customizeHooks: readonly string[];
  /** Directory for everything temporary; made where it is missing. */
  readonly workDir: string;
  readonly host: HostSettings;
  readonly log: BuildLog;
  readonly signal?: AbortSignal | undefined;
  /** Name of the step that begins. */
  readonly onStep?: ((step: string) => void) | undefined;
}

/** What a hook prints to stderr, followed by a step's name, when the step begins. */
export const STEP_MARK = 'qmp-agent-step: ';

/** mmdebstrap's own lines that begin a step. */
const STEPS: readonly (readonly [RegExp, string])[] = [
  [/^I: running apt-get update/, 'package lists'],
  [/^I: downloading packages with apt/, 'download'],
  [/^I: extracting archives/, 'extract'],
  [/^I: installing essential packages/, 'essential packages'],
  [/^I: installing remaining packages/, 'packages'],
];

/**
 * Lets hooks read a work directory and write below its `tmp`. Without root they run as another user
 * id; `tmp` is sticky, so that no third user can replace what they make.
 */
export async function openToHooks(workDir: string, mode: BuildMode): Promise<void> {
  const tmp = path.join(workDir, 'tmp');
  await mkdir(tmp, { recursive: true });
  await showToHooks(workDir, mode);
  if (mode === 'unshare') await chmod(tmp, 0o1777);
}

/** Lets hooks read a directory whatever our umask is. */
export async function showToHooks(dir: string, mode: BuildMode): Promise<void> {
  if (mode === 'unshare') await execa('chmod', ['-R', 'a+rX', dir]);
}

/** Where hooks leave what they make; it belongs to their user id. */
export function hookOutput(workDir: string): string {
  return path.join(workDir, 'tmp', 'out');
}

/**
 * Runs mmdebstrap without an output of its own: the hooks take what they need from the rootfs.
 * @throws {ImageError} ERR_IMAGE_BUILD naming the step
 * @throws {HostError} a program or a key is missing, or the disk is full
 */
export async function runMmdebstrap(options: MmdebstrapOptions): Promise<void> {
  const { workDir, host } = options;
  await mkdir(workDir, { recursive: true });
  const aptConf = path.join(workDir, 'apt.conf');
  await writeFile(aptConf, host.aptConf, { mode: 0o600 });
  const sources = path.join(workDir, SOURCES_FILE);
  if (host.mirror !== undefined) {
    // A file, because a mirror's password has no place in a process list.
    const keyring = await debianKeyring();
    await writeFile(sources, sourcesList(options.suite, host.mirror, keyring), { mode: 0o600 });
  }
  await openToHooks(workDir, options.mode);
  await runBuildCommand({
    step: 'start',
    argv: mmdebstrapArgv(options, {
      aptConf: host.aptConf === '' ? undefined : aptConf,
      sources: host.mirror === undefined ? undefined : sources,
    }),
    env: {
      TMPDIR: path.join(workDir, 'tmp'),
      HOME: '/root',
      DEBIAN_FRONTEND: 'noninteractive',
      ...host.proxyEnv,
    },
    log: options.log,
    signal: options.signal,
    isolate: options.mode === 'root',
    onLine: (line) => {
      const step = stepOf(line);
      if (step !== undefined) options.onStep?.(step);
      return step;
    },
  });
}

/** mmdebstrap puts it into /etc/apt/sources.list.d, with 0000 in front; hooks/customize removes it. */
const SOURCES_FILE = 'qmp-agent-build.list';

/** The command line. Pure. */
export function mmdebstrapArgv(
  options: MmdebstrapOptions,
  { aptConf, sources }: { aptConf?: string | undefined; sources?: string | undefined } = {},
): string[] {
  const packages = options.packages ?? [];
  return [
    'mmdebstrap',
    `--mode=${options.mode}`,
    `--variant=${options.variant}`,
    '--architectures=amd64',
    '--format=null',
    '--skip=cleanup', // the file system is made by then; what it must not hold, our hook removes
    ...(aptConf === undefined ? [] : [`--aptopt=${aptConf}`]),
    ...(options.dpkgOptions ?? []).map((option) => `--dpkgopt=${option}`),
    ...(packages.length === 0 ? [] : [`--include=${packages.join(',')}`]),
    ...(options.essentialHooks ?? []).map((hook) => `--essential-hook=${hook}`),
    ...options.customizeHooks.map((hook) => `--customize-hook=${hook}`),
    options.suite,
    '/dev/null',
    ...(sources === undefined ? [] : [sources]),
  ];
}

function stepOf(line: string): string | undefined {
  if (line.startsWith(STEP_MARK)) return line.slice(STEP_MARK.length);
  return STEPS.find(([pattern]) => pattern.test(line))?.[1];
}

/** Keyrings in which apt finds Debian's keys, by the names that releases have used. */
const KEYRINGS = [
  '/usr/share/keyrings/debian-archive-keyring.gpg',
  '/usr/share/keyrings/debian-archive-keyring.pgp',
];

async function debianKeyring(): Promise<string | undefined> {
  for (const file of KEYRINGS) {
    const found = await access(file).then(
      () => true,
      () => false,
    );
    if (found) return file;
  }
  return undefined;
}

/**
 * Finds out how this host can build, before anything is downloaded.
 * @throws {HostError} naming what is missing and how to get it
 */
export async function detectBuildMode(): Promise<BuildMode> {
  await requireTools(['mmdebstrap', 'mke2fs', 'qemu-img', 'unshare', 'setpriv', 'dpkg-deb']);
  if ((await debianKeyring()) === undefined) {
    throw new HostError('ERR_HOST_TOOL', "Debian's archive keys are not installed", {
      hint: 'Install them: apt-get install debian-archive-keyring',
    });
  }
  if (process.getuid?.() === 0) return 'root';
  return checkUnshare();
}

async function checkUnshare(): Promise<BuildMode> {
  const why = await unshareObstacle();
  if (why === undefined) return 'unshare';
  throw new HostError(
    'ERR_HOST_PERMISSION',
    `images cannot be built without root here: ${why[0]}`,
    {
      hint: `${why[1]}, or build as root.`,
    },
  );
}

async function unshareObstacle(): Promise<readonly [string, string] | undefined> {
  if ((await findTool('newuidmap')) === undefined) {
    return ['newuidmap is not installed', 'Install it (apt-get install uidmap)'];
  }
  const user = process.env['USER'] ?? String(process.getuid?.());
  for (const file of ['/etc/subuid', '/etc/subgid']) {
    const ranges = await readFile(file, 'utf8').catch(() => '');
    const mine = ranges
      .split('\n')
      .map((line) => line.split(':'))
      .find(
        ([name, , count]) =>
          (name === user || name === String(process.getuid?.())) && Number(count) >= 65_536,
      );
    if (mine === undefined) {
      return [
        `${file} gives ${user} no range of 65536 ids`,
        `Add one (usermod --add-subuids 100000-165535 --add-subgids 100000-165535 ${user})`,
      ];
    }
  }
  const trial = await execa('unshare', ['--user', '--map-root-user', '--mount', 'true'], {
    reject: false,
    env: { PATH: BUILD_PATH },
    timeout: 10_000,
  });
  if (trial.exitCode === 0) return undefined;
  return [
    'the kernel allows no user namespaces',
    'Allow them (sysctl kernel.unprivileged_userns_clone=1, on Ubuntu also kernel.apparmor_restrict_unprivileged_userns=0)',
  ];
}

/**
 * Removes a directory that builds worked in. Without root, what mmdebstrap made belongs to mapped
 * user ids, which only its helper can remove.
 */
export async function removeTree(dir: string): Promise<void> {
  await rm(dir, { recursive: true, force: true }).catch(async () => {
    const [helper = '', ...args] = [...UNSHARE_HELPER, 'rm', '-rf', dir];
    await execa(helper, args, { reject: false });
    await rm(dir, { recursive: true, force: true });
  });
}

/** In front of a program: runs it as root of a range of user ids, in namespaces of its own. */
export const UNSHARE_HELPER: readonly string[] = ['mmdebstrap', '--unshare-helper'];
