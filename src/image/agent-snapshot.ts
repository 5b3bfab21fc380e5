/** The cache of the agent's startup snapshots: archives that are appended to an initramfs as they are. */
import { createHash, randomBytes } from 'node:crypto';
import { mkdir, readdir, rename, rm, stat, utimes, writeFile } from 'node:fs/promises';
import path from 'node:path';
import {
  makeAgentSnapshot,
  SNAPSHOT_SCHEMA,
  snapshotEntries,
} from '../../firmware/agent-snapshot.ts';
import { cpioArchive } from '../../firmware/cpio.ts';
import { cachedNodeKit, type NodeKit } from '../../firmware/node-kit.ts';
import { AGENT_FILE, type AgentFiles } from '../../guest-agent/bundle.ts';
import { withLock } from '../with-lock.ts';
import type { ImageManifest } from './types.ts';

/** An archive in the cache. */
export interface SnapshotPart {
  readonly path: string;
  readonly sizeBytes: number;
  /** Changes with the contents. */
  readonly key: string;
}

/** A snapshot that nobody has booted for so long is removed. */
const UNUSED_MS = 14 * 24 * 3600 * 1000;
/** What could not be made is tried again after so long. */
const RETRY_MS = 24 * 3600 * 1000;
/** Debian's package that Node is in. */
const PACKAGE = 'nodejs ';

/**
 * The snapshot that an image's Node can take, made where it is not in the cache (half a second).
 * @returns undefined where none can be had: no Node kit of the image's version in the cache, or a host that
 * lets nobody change a root directory. A guest comes up without one, too, just later.
 * @throws the signal's reason
 */
export async function agentSnapshotPart(
  manifest: ImageManifest,
  cacheDir: string,
  agent: AgentFiles,
  signal?: AbortSignal,
): Promise<SnapshotPart | undefined> {
  const version = nodeVersion(manifest);
  if (manifest.node === 'image' && version === undefined) return undefined;
  const kit = await cachedNodeKit(cacheDir, version);
  const script = agent.files.find(({ name }) => name === AGENT_FILE)?.data;
  if (kit === undefined || script === undefined) return undefined;
  const words = [SNAPSHOT_SCHEMA, kit.version, manifest.node, agent.hash].join('\n');
  const key = createHash('sha256').update(words).digest('hex').slice(0, 24);
  const dir = path.join(cacheDir, 'agent-snapshot');
  const part = { path: path.join(dir, `${key}.cpio`), key };
  const present = await presentPart(part);
  if (present !== undefined || (await hasFailed(part))) return present;
  try {
    return await withLock(path.join(cacheDir, 'locks', 'agent-snapshot'), signal, async () => {
      const made = await presentPart(part); // by the one that we waited for
      if (made !== undefined || (await hasFailed(part))) return made;
      await removeUnused(dir);
      await make(part, { kit, node: manifest.node, script, signal });
      return presentPart(part);
    });
  } catch {
    signal?.throwIfAborted();
    return undefined; // a cache that cannot be written; who has to write to it will say so
  }
}

/** Of the package in the image; undefined where the agent runs on a Node of ours, or on none that we know. */
export function nodeVersion({
  node,
  packages,
}: Pick<ImageManifest, 'node' | 'packages'>): string | undefined {
  if (node === 'bundled') return undefined;
  return packages.find((entry) => entry.startsWith(PACKAGE))?.slice(PACKAGE.length);
}

async function presentPart(
  part: Pick<SnapshotPart, 'path' | 'key'>,
): Promise<SnapshotPart | undefined> {
  const status = await stat(part.path).catch(() => undefined);
  if (status === undefined) return undefined;
  const now = new Date();
  await utimes(part.path, now, now).catch(() => undefined); // used, so kept
  return { ...part, sizeBytes: status.size };
}

function failureOf(part: Pick<SnapshotPart, 'path'>): string {
  return `${part.path}.failed`;
}

async function hasFailed(part: Pick<SnapshotPart, 'path'>): Promise<boolean> {
  const status = await stat(failureOf(part)).catch(() => undefined);
  return status !== undefined && Date.now() - status.mtimeMs < RETRY_MS;
}

async function make(
  part: Pick<SnapshotPart, 'path'>,
  o: {
    kit: NodeKit;
    node: ImageManifest['node'];
    script: Buffer;
    signal: AbortSignal | undefined;
  },
): Promise<void> {
  const { kit, node, script, signal } = o;
  const dir = path.dirname(part.path);
  const temporary = `${part.path}.${randomBytes(4).toString('hex')}.tmp`;
  try {
    const snapshot = await makeAgentSnapshot(kit, script, dir, signal);
    await writeFile(temporary, cpioArchive(snapshotEntries(snapshot, node)), { mode: 0o444 });
    await rename(temporary, part.path);
    await rm(failureOf(part), { force: true });
  } catch (error) {
    await rm(temporary, { force: true });
    signal?.throwIfAborted(); // it has not failed: whoever comes next makes it
    await mkdir(dir, { recursive: true });
    await writeFile(failureOf(part), `${error instanceof Error ? error.message : String(error)}\n`);
  }
}

/** Old ones, and what killed makers have left: the lock says that none is at work. */
async function removeUnused(dir: string): Promise<void> {
  for (const name of await readdir(dir).catch(() => [])) {
    const entry = path.join(dir, name);
    const status = await stat(entry).catch(() => undefined);
    const isOld = status !== undefined && Date.now() - status.mtimeMs > UNUSED_MS;
    if (isOld || name.startsWith('.tmp-') || name.endsWith('.tmp')) {
      await rm(entry, { recursive: true, force: true });
    }
  }
}
