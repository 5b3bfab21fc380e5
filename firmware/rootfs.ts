/**
 * Builds a root file system: stages what the hooks need beside them, runs mmdebstrap, leaves an ext4
 * image. Nothing is mounted outside the build's own namespace.
 */
import { chmod, copyFile, mkdir, readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { assetPath } from './assets.ts';
import { MINIMAL_PACKAGES } from './base-recipe.ts';
import type { BootKit } from './boot-kit.ts';
import type { BuildLog } from './build-process.ts';
import type { HostSettings } from './host-apt.ts';
import { sourcesList } from './host-mirror.ts';
import { hookOutput, runMmdebstrap, showToHooks, type BuildMode } from './mmdebstrap.ts';
import { BUNDLED_NODE, OWN_NODE, type NodeKit } from './node-kit.ts';
import type { Recipe } from './recipe.ts';

/** One build of a root file system. */
export interface RootfsOptions {
  readonly recipe: Recipe;
  /** Contents of the recipe's files, in their order. */
  readonly files: readonly Buffer[];
  /** Needed late, so they may be fetched while packages are installed. */
  readonly kits: Promise<Kits>;
  readonly mode: BuildMode;
  readonly host: HostSettings;
  /** An empty directory for all that is temporary. */
  readonly workDir: string;
  readonly log: BuildLog;
  readonly signal?: AbortSignal | undefined;
  readonly onStep?: ((step: string) => void) | undefined;
}

/** What goes into an image besides its packages. */
export interface Kits {
  readonly kit: BootKit;
  /** A Node for the agent, where the image has none: see `hasOwnNode`. */
  readonly node: NodeKit | undefined;
}

/** What a build yields. */
export interface Rootfs {
  /** Raw ext4 image, sparse. */
  readonly rawPath: string;
  /** `name version`, sorted. */
  readonly packages: readonly string[];
}

/** Documentation is of no use to agents and half of the files of many packages. */
const DPKG_OPTIONS = [
  'force-unsafe-io', // no fsync per file: a build that is cut short starts anew
  'path-exclude=/usr/share/man/*',
  'path-exclude=/usr/share/info/*',
  'path-exclude=/usr/share/locale/*',
  'path-exclude=/usr/share/doc/*',
  'path-include=/usr/share/doc/*/copyright',
];

/** Steps of {@link buildRootfs} in order, as `onStep` names them. */
export const ROOTFS_STEPS: readonly string[] = [
  'package lists',
  'download',
  'extract',
  'essential packages',
  'packages',
  'system files',
  'files',
  'provision',
  'clean up',
  'file system',
];

/**
 * Builds the root file system of a recipe.
 * @throws {ImageError} ERR_IMAGE_BUILD naming the step and quoting its last lines
 */
export async function buildRootfs(options: RootfsOptions): Promise<Rootfs & { trash: string }> {
  const { workDir, recipe } = options;
  await stageBuild(options);
  await writeFile(path.join(workDir, 'size'), String(recipe.sizeMib * 1024 * 1024));
  const failed = new AbortController();
  const staging = stageKits(options).catch((error: unknown) => {
    failed.abort(error);
    throw error;
  });
  const installing = runMmdebstrap({
    ...options,
    signal: AbortSignal.any([failed.signal, ...(options.signal ? [options.signal] : [])]),
    suite: recipe.suite,
    variant: 'apt',
    packages: [...new Set([...MINIMAL_PACKAGES, ...recipe.packages])].sort(),
    dpkgOptions: DPKG_OPTIONS,
    essentialHooks:
      options.host.localCertificates.size > 0 ? [path.join(workDir, 'certificates')] : [],
    customizeHooks: [path.join(workDir, 'customize')],
  });
  // Both have ended before this does: neither works on in a directory that is being removed.
  const results = await Promise.allSettled([installing, staging]);
  for (const result of results) if (result.status === 'rejected') throw result.reason;
  const out = hookOutput(workDir);
  const packages = await readFile(path.join(out, 'packages'), 'utf8');
  const [rawPath, trash] = [path.join(out, 'rootfs.raw'), path.join(out, 'trash')];
  return { rawPath, packages: packages.trim().split('\n').sort(), trash };
}

async function stageKits({ workDir, recipe, kits, mode }: RootfsOptions): Promise<void> {
  const stage = path.join(workDir, 'stage');
  const { name: hostname, environment } = recipe;
  await stagePrepare(stage, { ...(await kits), hostname, environment });
  await showToHooks(stage, mode);
  await writeFile(path.join(stage, 'complete'), ''); // hooks/customize waits for it
}

/** What `prepare` reads, whether in a build or in an import. */
export interface PrepareFiles extends Kits {
  readonly hostname: string;
  readonly environment: Readonly<Record<string, string>>;
  /** User and working directory of execs that name none. Default: `agent`, the user's home. */
  readonly user?: string | undefined;
  readonly workdir?: string | undefined;
}

/** Writes what `hooks/prepare` reads into a directory. */
export async function stagePrepare(dir: string, files: PrepareFiles): Promise<void> {
  await mkdir(dir, { recursive: true });
  await Promise.all([
    copyFile(files.kit.busyboxPath, path.join(dir, 'busybox')),
    copyFile(files.kit.modulesTarPath, path.join(dir, 'modules.tar')),
    copyFile(assetPath('hooks/prepare'), path.join(dir, 'prepare')),
    writeFile(path.join(dir, 'kernel-version'), `${files.kit.kernelVersion}\n`),
    writeFile(path.join(dir, 'hostname'), `${files.hostname}\n`),
    writeFile(path.join(dir, 'node'), `${files.node ? BUNDLED_NODE.join(' ') : OWN_NODE}\n`),
    ...(files.node ? [copyFile(files.node.tarPath, path.join(dir, 'node.tar'))] : []),
    writeFile(path.join(dir, 'environment'), environmentFile(files.environment)),
    writeFile(path.join(dir, 'user'), `${files.user ?? 'agent'}\n`),
    writeFile(path.join(dir, 'workdir'), `${files.workdir ?? ''}\n`),
  ]);
}

/** `NAME=value` lines, as the agent reads them. */
export function environmentFile(environment: Readonly<Record<string, string>>): string {
  return Object.entries(environment)
    .map(([name, value]) => `${name}=${value}\n`)
    .join('');
}

async function stageBuild(options: RootfsOptions): Promise<void> {
  const { workDir, recipe, host } = options;
  const stage = path.join(workDir, 'stage');
  await mkdir(stage);
  for (const hook of ['certificates', 'customize', 'make-filesystem']) {
    await copyFile(assetPath(`hooks/${hook}`), path.join(workDir, hook));
    await chmod(path.join(workDir, hook), 0o755);
  }
  if (host.localCertificates.size > 0) {
    const certificates = path.join(stage, 'certificates');
    await mkdir(certificates);
    for (const [name, pem] of host.localCertificates) {
      await writeFile(path.join(certificates, name), pem);
    }
  }
  if (host.mirror !== undefined) {
    await writeFile(path.join(workDir, 'sources.list'), sourcesList(recipe.suite));
  }
  await stageFiles(options);
  if (recipe.provision === undefined) return;
  await writeFile(path.join(workDir, 'provision'), recipe.provision);
  if (host.caBundle !== undefined) await writeFile(path.join(workDir, 'ca.crt'), host.caBundle);
  const env = { ...recipe.environment, ...host.proxyEnv, ...CA_VARIABLES };
  await writeFile(path.join(workDir, 'environment'), shellExports(env));
}

/** Where provisioning scripts' tools find the host's certificates while the build lasts. */
const CA_VARIABLES: Readonly<Record<string, string>> = Object.fromEntries(
  [
    'SSL_CERT_FILE',
    'CURL_CA_BUNDLE',
    'GIT_SSL_CAINFO',
    'NODE_EXTRA_CA_CERTS',
    'PIP_CERT',
    'REQUESTS_CA_BUNDLE',
  ].map((name) => [name, '/.qmp-agent/ca.crt']),
);

/** As a file that the script's shell reads, because a proxy's password has no place in a process list. */
function shellExports(env: Readonly<Record<string, string>>): string {
  return Object.entries(env)
    .map(([name, value]) => `export ${name}='${value.replaceAll("'", `'\\''`)}'\n`)
    .join('');
}

async function stageFiles({ workDir, recipe, files }: RootfsOptions): Promise<void> {
  if (recipe.files.length === 0) return;
  const dir = path.join(workDir, 'files');
  await mkdir(dir);
  for (const [index, file] of recipe.files.entries()) {
    const name = path.join(dir, String(index).padStart(5, '0'));
    await writeFile(name, files[index] ?? Buffer.alloc(0));
    await writeFile(`${name}.meta`, `${file.mode.toString(8)}\n${file.owner}\n${file.to}\n`);
  }
}
