/**
 * What is written down of each VM that has a tap, for whoever has to know: the service that answers its names,
 * `qmp-agent net`, and gc. One small file per VM in the runtime directory, gone with the next boot as taps are.
 */
import { mkdir, readFile, readdir, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import type { VmNetwork } from '../../nft/index.ts';
import { TEMPORARY_SUFFIX, writeWholeFile } from '../whole-file.ts';
import type { Loan } from './lent/loan.ts';
import type { EgressOptions, VmPolicy } from './policy.ts';
import type { PublishedHostPort } from './publish.ts';

const SCHEMA = 1;
/** A policy with some thousand names. */
const MAX_ENTRY_BYTES = 4 * 2 ** 20;
/** What is younger may be in the writing. */
const MIN_AGE_MS = 10_000;
const ENTRY = /^([0-9a-f]+)\.json$/;

/** One VM on the network. */
export interface NetworkEntry {
  readonly vmId: string;
  readonly network: VmNetwork;
  readonly policy: VmPolicy;
  /** What the policy was made from. */
  readonly egress: EgressOptions;
  /** The policy was being changed: the kernel may have the old one or the new one. */
  readonly isChanging?: true | undefined;
  /** Ports of the host that lead to it. */
  readonly published: readonly PublishedHostPort[];
  /** Where what it does is recorded. */
  readonly logPath: string;
  /** Whoever knows that path may read it. Default: who writes it alone. */
  readonly isLogOpen?: true | undefined;
  /** Its tap is borrowed; rules, names and records are seen to by whoever lends it. */
  readonly loan?: Loan | undefined;
}

/** Directory of the entries, and of the service's socket. */
export function networkDir(runtimeDir: string): string {
  return join(runtimeDir, 'network');
}

/** @throws HostError ERR_HOST_DISK_FULL; else the system's error */
export async function writeEntry(dir: string, entry: NetworkEntry): Promise<void> {
  await mkdir(dir, { recursive: true, mode: 0o700 });
  await writeWholeFile(pathOf(dir, entry.vmId), JSON.stringify({ schema: SCHEMA, ...entry }));
}

/** Undefined: there is none, or none that this version reads. */
export async function readEntry(dir: string, vmId: string): Promise<NetworkEntry | undefined> {
  try {
    const text = await readFile(pathOf(dir, vmId), 'utf8');
    if (text.length > MAX_ENTRY_BYTES) return undefined;
    const entry = JSON.parse(text) as NetworkEntry & { schema: unknown };
    return entry.schema === SCHEMA && entry.vmId === vmId ? entry : undefined;
  } catch {
    return undefined;
  }
}

/** As {@link readEntry}, of the VM of a state directory. */
export async function readEntryOf(
  runtimeDir: string,
  vmId: string,
): Promise<NetworkEntry | undefined> {
  return readEntry(networkDir(runtimeDir), vmId);
}

/** No error where it is gone. */
export async function removeEntry(dir: string, vmId: string): Promise<void> {
  await rm(pathOf(dir, vmId), { force: true });
}

/** Those that were never finished: their writers died. */
export async function removeHalfEntries(dir: string): Promise<void> {
  for (const name of await readdir(dir).catch(() => [])) {
    if (!TEMPORARY_SUFFIX.test(name)) continue;
    const facts = await stat(join(dir, name)).catch(() => undefined);
    if (facts !== undefined && Date.now() - facts.mtimeMs > MIN_AGE_MS)
      await rm(join(dir, name), { force: true });
  }
}

/** All of them. */
export async function readEntries(dir: string): Promise<NetworkEntry[]> {
  const names = await readdir(dir).catch(() => []);
  const ids = names.flatMap((name) => ENTRY.exec(name)?.[1] ?? []);
  const entries = await Promise.all(ids.map((id) => readEntry(dir, id)));
  return entries.filter((entry) => entry !== undefined);
}

function pathOf(dir: string, vmId: string): string {
  return join(dir, `${vmId}.json`);
}
