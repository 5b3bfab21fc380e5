/**
 * The Node that an image gets for its agent where it has none of its own: Debian's, with its dynamic
 * linker and all its libraries, so it runs on whatever libc the image has (musl, an old glibc, none).
 * In an imported image no Node is looked for: nothing of an image is run on the host, so its version
 * would stay a guess, and what the image's user does to it must not cost the agent.
 */
import { copyFile, chmod, mkdir, readdir, readFile } from 'node:fs/promises';
import path from 'node:path';
import { runBuildCommand } from './build-process.ts';
import type { Recipe } from './recipe.ts';
import {
  brokenKit,
  cachedKit,
  ensureKit,
  extractDebs,
  type KitKind,
  type KitOptions,
} from './kit-cache.ts';

/** A Node in the cache. */
export interface NodeKit {
  /** Version of Debian's package. */
  readonly version: string;
  /** To be unpacked in {@link NODE_DIR}: `bin`, `lib`, `share`. */
  readonly tarPath: string;
}

/** Where images have it. */
export const NODE_DIR = '/opt/qmp-agent';

/** Words that start it, for the init. */
export const BUNDLED_NODE: readonly string[] = [
  `${NODE_DIR}/lib/ld-linux-x86-64.so.2`,
  '--library-path',
  `${NODE_DIR}/lib`,
  `${NODE_DIR}/bin/node`,
];

/** Where Debian's package has it, and the library that is all of it. */
export const OWN_NODE = '/usr/bin/node';
export const OWN_LIBRARIES = '/usr/lib/x86_64-linux-gnu';
/** That library's name; of Debian 13. */
export const LIBNODE = 'libnode.so.115';
/** Suites whose Node is older than the 20.19 that the agent needs. */
const OLD_SUITES = new Set(['buster', 'bullseye', 'bookworm', 'oldoldstable', 'oldstable']);

/** Whether an image of this recipe has a Node that the agent can run on. */
export function hasOwnNode({ suite, packages }: Pick<Recipe, 'suite' | 'packages'>): boolean {
  return !OLD_SUITES.has(suite) && packages.some((name) => /^nodejs([=/:]|$)/.test(name));
}

const STEP = 'node';
const LINKER = 'ld-linux-x86-64.so.2';
/** What the agent's native binary asks for besides what Node does; part of glibc. */
const LIBRARIES_OF_AGENT = ['libdl.so.2', 'libpthread.so.0', 'librt.so.1'];
/** Where Debian's Node reads parts of its own library from; the path is compiled in. */
const NODE_SHARE = '/usr/share/nodejs/';

interface NodeFacts {
  readonly schema: number;
  readonly version: string;
}

const NODE_KIT: KitKind<NodeFacts> = {
  name: 'node-kit',
  step: STEP,
  schema: 1,
  packages: [],
  closures: ['nodejs'],
  assemble,
};

/** The Node in the cache: see {@link ensureKit}. */
export async function ensureNodeKit(options: KitOptions): Promise<NodeKit> {
  const { dir, facts } = await ensureKit(NODE_KIT, options);
  return { version: facts.version, tarPath: path.join(dir, 'node.tar') };
}

/**
 * A Node that is in the cache already: of this version, else the newest.
 * @returns undefined where there is none
 */
export async function cachedNodeKit(
  cacheDir: string,
  version?: string,
): Promise<NodeKit | undefined> {
  const kit = await cachedKit(NODE_KIT, cacheDir, version);
  return kit && { version: kit.facts.version, tarPath: path.join(kit.dir, 'node.tar') };
}

async function assemble(
  { closure, work, out }: { closure: string; work: string; out: string },
  options: KitOptions,
): Promise<{ version: string; facts: NodeFacts }> {
  const tree = path.join(work, 'tree');
  await extractDebs(closure, tree, options);
  const parts = path.join(work, 'parts');
  for (const name of ['bin', 'lib', 'share'])
    await mkdir(path.join(parts, name), { recursive: true });
  const node = path.join(tree, 'usr/bin/node');
  const libraries = await librariesOf(node, tree, options);
  await copyFile(node, path.join(parts, 'bin/node'));
  for (const [name, file] of libraries) {
    await copyFile(file, path.join(parts, 'lib', name));
    await chmod(path.join(parts, 'lib', name), 0o755);
  }
  for (const name of await externalScripts([...libraries.values()])) {
    const to = path.join(parts, 'share', name);
    await mkdir(path.dirname(to), { recursive: true });
    await copyFile(path.join(tree, NODE_SHARE, name), to);
  }
  const version = await packageVersion(closure);
  await runBuildCommand({
    step: STEP,
    argv: [
      ...['tar', '--create', '--file', path.join(out, 'node.tar'), '--owner=0', '--group=0'],
      ...['--numeric-owner', '--mode=u=rwX,go=rX', '--sort=name', '-C', parts],
      ...['bin', 'lib', 'share'],
    ],
    log: options.log,
    signal: options.signal,
  });
  return { version, facts: { schema: NODE_KIT.schema, version } };
}

/** Name → file of every shared library that Node loads, as the packages' own dynamic linker finds them. */
async function librariesOf(
  node: string,
  tree: string,
  options: KitOptions,
): Promise<Map<string, string>> {
  const dir = path.join(tree, 'usr/lib/x86_64-linux-gnu');
  const { stdout } = await runBuildCommand({
    step: STEP,
    argv: [path.join(dir, LINKER), '--library-path', dir, '--list', node],
    log: options.log,
    signal: options.signal,
  });
  const names = [...stdout.matchAll(/^\s*(\S+) => \S+ \(/gm)].map(([, name = '']) =>
    path.basename(name),
  );
  const all = new Set([LINKER, ...names, ...LIBRARIES_OF_AGENT]);
  return new Map([...all].map((name) => [name, path.join(dir, name)]));
}

/** Files below {@link NODE_SHARE} that are named in the libraries' constants. */
async function externalScripts(libraries: readonly string[]): Promise<readonly string[]> {
  const libnode = libraries.find((file) => path.basename(file).startsWith('libnode.so'));
  if (libnode === undefined) return []; // compiled in
  const text = (await readFile(libnode)).toString('latin1');
  const found = text.matchAll(/\/usr\/share\/nodejs\/([\w./-]+\.js)/g);
  return [...new Set([...found].map(([, name = '']) => name))].sort();
}

/** A package's file is named `nodejs_VERSION_amd64.deb`. */
async function packageVersion(closure: string): Promise<string> {
  for (const name of await readdir(closure)) {
    const version = /^nodejs_([^_]+)_/.exec(name)?.[1];
    if (version !== undefined) return version;
  }
  throw brokenKit(STEP, 'no package nodejs');
}
