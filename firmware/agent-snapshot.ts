/**
 * The agent as a startup snapshot of Node (`node --build-snapshot`): a heap in which Node has started and
 * the agent is loaded. Debian's Node is built without a snapshot of its own, so each start compiles and
 * runs all of its own bootstrap scripts; under emulation that is most of a guest's way from the init to
 * the agent's first answer.
 *
 * A snapshot fits the very build of Node that made it. It is made here by the Node kit's, and says by
 * {@link AgentSnapshot.libraryHead} whose it is: the init compares before it uses it, and starts the plain
 * script where that differs or where the snapshot does not come up.
 */
import { execa } from 'execa';
import { mkdir, mkdtemp, open, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { BUILD_PATH } from './build-process.ts';
import { file, type CpioEntry } from './cpio.ts';
import { LIBNODE, NODE_DIR, OWN_LIBRARIES, type NodeKit } from './node-kit.ts';

/** Raised when a snapshot of the same Node and agent would be another. */
export const SNAPSHOT_SCHEMA = 1;

/** A snapshot and whose it is. */
export interface AgentSnapshot {
  readonly blob: Buffer;
  /**
   * Begin of Node's library: an ELF header and the build's id, which is a hash of the whole.
   * (ld(1), `--build-id`.)
   */
  readonly libraryHead: Buffer;
}

/** Where the agent and its native binary are in the guest. */
const AGENT_DIR = '/run/qmp-agent';
/** A page. The build's id lies behind the program headers, at some 700 bytes. */
const HEAD_BYTES = 4096;
/** ms that making one may take; it takes some 100. */
const TIMEOUT_MS = 30_000;

/** Entries of an initramfs that bring a snapshot to the init, for an image whose agent runs on this Node. */
export function snapshotEntries(snapshot: AgentSnapshot, node: 'image' | 'bundled'): CpioEntry[] {
  const dir = node === 'bundled' ? `${NODE_DIR}/lib` : OWN_LIBRARIES;
  return [
    file('agent/snapshot', snapshot.blob),
    file('agent/snapshot.library', Buffer.from(`${dir}/${LIBNODE}\n`)),
    file('agent/snapshot.head', snapshot.libraryHead),
  ];
}

/**
 * Makes the snapshot of an agent's script by a kit's Node, in a directory of its own below `workDir`.
 * Needs to change the root directory, as root or in a user namespace.
 * @throws Error what the host or Node refuses; the signal's reason
 */
export async function makeAgentSnapshot(
  kit: NodeKit,
  script: Buffer,
  workDir: string,
  signal?: AbortSignal,
): Promise<AgentSnapshot> {
  await mkdir(workDir, { recursive: true });
  const root = await mkdtemp(path.join(workDir, '.tmp-'));
  try {
    await run(
      ['tar', '--extract', '--file', kit.tarPath, '--directory', root, '--no-same-owner'],
      signal,
    );
    await mkdir(path.join(root, 'usr/share'), { recursive: true });
    await symlink('../../share', path.join(root, 'usr/share/nodejs'));
    await writeFile(path.join(root, 'entry.cjs'), snapshotScript(script.toString('utf8')));
    await run([...chrootWords(root), ...NODE_WORDS, '/entry.cjs'], signal);
    return {
      blob: asDefaultSnapshot(await readFile(path.join(root, 'blob'))),
      libraryHead: await readHead(path.join(root, 'lib', LIBNODE)),
    };
  } finally {
    await rm(root, { recursive: true, force: true });
  }
}

/** Node reads parts of its own library by paths that are compiled in, hence a root directory of its own. */
function chrootWords(root: string): string[] {
  const user = process.getuid?.() === 0 ? [] : ['--map-root-user'];
  return ['setpriv', '--pdeathsig', 'KILL', 'unshare', ...user, `--root=${root}`, '--wd=/'];
}

const NODE_WORDS: readonly string[] = [
  ...['/lib/ld-linux-x86-64.so.2', '--library-path', '/lib', '/bin/node'],
  ...['--no-warnings', '--snapshot-blob', '/blob', '--build-snapshot'],
];

async function run(
  [program = '', ...args]: readonly string[],
  signal: AbortSignal | undefined,
): Promise<void> {
  signal?.throwIfAborted();
  const env = { PATH: BUILD_PATH, LC_ALL: 'C.UTF-8' };
  const options = { cwd: '/', env, extendEnv: false, timeout: TIMEOUT_MS } as const;
  const cancel = signal === undefined ? {} : { cancelSignal: signal };
  try {
    await execa(program, args, { ...options, ...cancel, stdin: 'ignore', killSignal: 'SIGKILL' });
  } catch (error) {
    signal?.throwIfAborted();
    throw error;
  }
}

async function readHead(libraryPath: string): Promise<Buffer> {
  const handle = await open(libraryPath, 'r');
  try {
    const { buffer, bytesRead } = await handle.read(Buffer.alloc(HEAD_BYTES), 0, HEAD_BYTES, 0);
    return buffer.subarray(0, bytesRead);
  } finally {
    await handle.close();
  }
}

/**
 * The agent's script for `--build-snapshot`, where `require` knows Node's own modules only: the native
 * binary is loaded by Node's own loader for such, later, in the guest.
 */
export function snapshotScript(script: string): string {
  return `const builtin = require; {
const require = (id) => {
  if (!id.endsWith('.node')) return builtin(id);
  const module = { exports: {} };
  process.dlopen(module, ${JSON.stringify(AGENT_DIR)} + id.slice(1));
  return module.exports;
};
${script}
}
`;
}

/** First bytes of a snapshot's file and the two types that follow them (Node 20's src/node_snapshotable.cc). */
const MAGIC = Buffer.from([0x19, 0xda, 0x43, 0x01]);
const CUSTOM = 1;
const DEFAULT = 0;

/**
 * Has Node take the snapshot for one that it was built with. It refuses its users' own where the processor
 * has other features than the one that they were made on, which could only matter to machine code; there
 * is none in a snapshot, and so Node's builds carry theirs from one machine to all others.
 * @throws Error this is no snapshot as Node 20 writes it
 */
export function asDefaultSnapshot(blob: Buffer): Buffer {
  const at = MAGIC.length;
  if (!blob.subarray(0, at).equals(MAGIC) || blob[at] !== CUSTOM) {
    throw new Error('Node has written a snapshot of a form that is not known');
  }
  const patched = Buffer.from(blob);
  patched[at] = DEFAULT;
  return patched;
}
