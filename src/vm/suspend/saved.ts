/** The memory of a suspended VM on disk: a directory in the VM's own, named by its record. */
import { readdir, readFile, rm, stat } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { formatBytes } from '../../config/units.ts';
import { HostError, SuspendError } from '../../errors.ts';
import { usedBytes } from '../../storage/index.ts';
import { isSavedName } from '../ids.ts';
import type { SavedMemory, VmRecord, VmRun } from '../record.ts';
import { freeBytes, heldBytes } from '../snapshot-space.ts';
import { syncPath } from '../../whole-file.ts';
import { differenceOf, madeHere } from '../template/fit.ts';
import { sha256 } from '../template/manifest.ts';
import type { FrozenFiles } from '../template/state.ts';

/** More than the devices' state and a record take. */
const STATE_BYTES = 4 * 2 ** 20;

/** What one directory holds. */
export interface SavedFiles extends FrozenFiles {
  readonly dir: string;
}

/** Files of the directory of this name. @param vmDir the VM's own */
export function savedFiles(vmDir: string, name: string): SavedFiles {
  const dir = join(vmDir, name);
  return { dir, memoryPath: join(dir, 'memory'), statePath: join(dir, 'devices') };
}

/**
 * The second name of a record while its VM is being suspended. None of the temporaries that gc knows by
 * their age: it is as old as the record.
 */
export function keptRecord(recordPath: string): string {
  return `${recordPath}.kept`;
}

/** Bytes that a suspended VM's memory takes on the host. */
export async function savedBytes(files: SavedFiles): Promise<number> {
  const sizes = await Promise.all([files.memoryPath, files.statePath].map(usedBytes));
  return sizes.reduce((sum, bytes) => sum + bytes, 0);
}

/**
 * The directory that a record stands on: what is suspended there, or what the memory of its QEMU is
 * mapped from.
 */
export function savedInUse(
  { state, suspended, run }: Pick<VmRecord, 'state' | 'suspended' | 'run'>,
  isRunning: (run: VmRun) => boolean,
): string | undefined {
  if (state === 'suspended') return suspended?.name;
  if (run?.memoryPath === undefined || !isRunning(run)) return undefined;
  const name = basename(dirname(run.memoryPath));
  return isSavedName(name) ? name : undefined; // else it is a template's
}

/** Removes the memory of earlier suspends; the machine lock is held. @returns the directories */
export async function sweepSaved(vmDir: string, keep: string | undefined): Promise<string[]> {
  const names = await readdir(vmDir).catch(() => []);
  const dirs = names
    .filter((name) => isSavedName(name) && name !== keep)
    .map((name) => join(vmDir, name));
  for (const dir of dirs) await rm(dir, { recursive: true, force: true, maxRetries: 2 });
  return dirs;
}

/** Has all of it on the disk, so that it outlives the host's power. */
export async function makeDurable(files: SavedFiles): Promise<void> {
  for (const path of [files.memoryPath, files.statePath, files.dir, dirname(files.dir)])
    await syncPath(path);
}

/**
 * Looks before anything is touched: what is saved takes no more than QEMU holds of its own memory, and
 * what the guest's was mapped from.
 * @throws HostError ERR_HOST_DISK_FULL
 */
export async function requireSpace(
  vmDir: string,
  o: { pid: number; memoryPath: string | undefined; memoryBytes: number },
): Promise<void> {
  const held = await heldBytes(o.pid, ['RssAnon', 'VmSwap']);
  const below = o.memoryPath === undefined ? 0 : await usedBytes(o.memoryPath);
  const needed = Math.min(held + below, o.memoryBytes + STATE_BYTES);
  const free = await freeBytes(vmDir);
  if (free >= needed) return;
  throw noSpace(`it may take ${formatBytes(needed)}, and ${formatBytes(free)} are free`);
}

/** A full disk, in the words of whoever suspends. */
export function asNoSpace(error: unknown): unknown {
  if (!(error instanceof HostError) || error.code !== 'ERR_HOST_DISK_FULL') return error;
  return noSpace('the host’s disk is full', error);
}

function noSpace(why: string, cause?: unknown): HostError {
  return new HostError('ERR_HOST_DISK_FULL', `the VM’s memory cannot be saved: ${why}`, {
    hint: 'Free space where the VM’s disk is; until then it runs on.',
    cause,
  });
}

/**
 * Makes sure that a VM can go on from what was saved of it.
 * @throws SuspendError
 */
export async function requireUsable(
  record: VmRecord,
  { saved, run, files }: { saved: SavedMemory; run: VmRun; files: SavedFiles },
): Promise<void> {
  const { id, config } = record;
  const giveUp = `boot it from its disk, which loses what was in its memory: \`qmp-agent start --discard ${id}\`.`;
  const here = await madeHere({ qemuPath: config.qemuPath, accel: run.accel });
  const differs = differenceOf(saved, here);
  if (differs !== undefined) {
    throw new SuspendError('ERR_SUSPEND_MISMATCH', `VM ${id} was suspended with ${differs}`, {
      vmId: id,
      hint: `Bring that back, and resume the VM; or ${giveUp}`,
    });
  }
  const [memory, state] = await Promise.all([
    stat(files.memoryPath).catch(() => undefined),
    readFile(files.statePath).catch(() => undefined),
  ]);
  const defect =
    memory?.size !== saved.memoryBytes
      ? 'its memory is not whole'
      : state === undefined || sha256(state) !== saved.stateSha256
        ? "its devices' state is not what was saved"
        : undefined;
  if (defect === undefined) return;
  throw new SuspendError('ERR_SUSPEND_CORRUPT', `VM ${id} cannot be resumed: ${defect}`, {
    vmId: id,
    hint: `Put ${files.dir} back as it was, or ${giveUp}`,
  });
}
