/** What is on disk about a VM: `vm.json`. Written whole and renamed into place, so never seen half. */
import { open, readdir } from 'node:fs/promises';
import type { MachineType } from '../../firmware/machine.ts';
import { StateDirError } from '../errors.ts';
import type { EgressOptions, LanOptions } from '../network/index.ts';
import type { NetworkMode } from '../network/mode.ts';
import type { Accel, AccelChoice, StatePaths } from './api.ts';
import { isSavedName, isVmId } from './ids.ts';
import { isIdentity, type ProcessIdentity } from './process-identity.ts';
import {
  checkSchema,
  LaterVersionError,
  STATE_SCHEMA,
  stateFault,
  writeWhole,
} from './state-dir.ts';
import type { MadeWith } from './template/fit.ts';
import { vmPaths, vmsDir, type VmPaths } from './vm-paths.ts';

/** Longest record that is read; ours have some 3 KiB. */
const MAX_RECORD_BYTES = 1024 * 1024;

/** What was asked for, resolved and validated. Does not change while the VM exists, but for its disk quota. */
export interface VmConfig {
  readonly image: string;
  /** Id of the image's contents at the time: the overlay fits no other. */
  readonly imageId: string;
  readonly rootfsPath: string;
  readonly vcpus: number;
  readonly memoryMib: number;
  readonly diskBytes: number;
  /** Most that the overlay's file may grow to; undefined: no bound. */
  readonly diskQuotaBytes?: number | undefined;
  readonly accel: AccelChoice;
  readonly machine: MachineType;
  readonly channel: 'vsock' | 'virtio-serial';
  /** Undefined: it was made when VMs had no network device, and has none. */
  readonly network?: NetworkMode | undefined;
  /** What it may reach with a tap, as it was made; presets are names by now. */
  readonly egress?: EgressOptions | undefined;
  /** Who it is on a bridge, and only there. */
  readonly lan?: LanOptions | undefined;
  /** Whether it has IPv6 addresses, too, with a tap. Undefined: it has none. */
  readonly ipv6?: boolean | undefined;
  /** Ports of the host that lead to it, with a tap. */
  readonly publish?: readonly string[] | undefined;
  /** Asked for by the caller; undefined: a random one at each start. */
  readonly cid?: number | undefined;
  readonly hostname: string;
  readonly kernelArgs: readonly string[];
  readonly qemuPath: string;
  readonly persistent: boolean;
  /** What it is a clone of: its disk stands on the template's. */
  readonly template?: TemplateRef | undefined;
}

/** The template under a VM. */
export interface TemplateRef {
  readonly name: string;
  /** Of the very template: another of the same name is another. */
  readonly id: string;
  /** Its disks, the nearest first, the image's last. */
  readonly diskPaths: readonly string[];
  /** virtio-serial ports; the machine has to look the same. */
  readonly ports: number;
}

/** One life of QEMU for this VM. */
export interface VmRun {
  /** Who started it; while `qemu` is missing, whether the start is still under way. */
  readonly starter: ProcessIdentity;
  readonly qemu?: ProcessIdentity | undefined;
  readonly startedAt: string;
  readonly accel: Accel;
  readonly cid?: number | undefined;
  /** virtio-serial ports there are; 0 with vsock. */
  readonly ports: number;
  /** Where this life began as a clone: the file that its memory is a copy-on-write mapping of. */
  readonly memoryPath?: string | undefined;
  /** Snapshots loaded so far: a session with the guest from before the last one is void. */
  readonly restores?: number | undefined;
  /**
   * The last snapshot is being loaded, or was (`loaded`) and the guest has not been given fresh entropy
   * and the time since. Undefined: neither.
   */
  readonly restoring?: 'loading' | 'loaded' | undefined;
  /** A fork or a diff is under way, or broke off: what runs in the guest may stand still. */
  readonly forking?: boolean | undefined;
  /**
   * What execs have started stands still: a suspend or a resume is under way, or has broken off. The
   * guest needs fresh entropy and the time before it may go on.
   */
  readonly parked?: true | undefined;
}

/** What {@link VmRecord.suspended} says of a VM's memory on disk. */
export interface SavedMemory extends MadeWith {
  /** Name of a directory in the VM's own. */
  readonly name: string;
  /** ISO 8601, host clock. */
  readonly savedAt: string;
  readonly memoryBytes: number;
  readonly stateSha256: string;
  /** virtio-serial channels that had a session: the agent still believes in those. */
  readonly busyChannels?: readonly number[] | undefined;
}

/** States that are written down; what the host shows besides is added when a record is read. */
export type RecordedState =
  'starting' | 'running' | 'paused' | 'stopping' | 'stopped' | 'suspended';

/** `vm.json`. */
export interface VmRecord {
  readonly schema: typeof STATE_SCHEMA;
  readonly id: string;
  readonly name?: string | undefined;
  readonly createdAt: string;
  /** The process that an ephemeral VM belongs to. */
  readonly owner?: ProcessIdentity | undefined;
  readonly config: VmConfig;
  readonly state: RecordedState;
  /** Why, where there is more to say. */
  readonly detail?: string | undefined;
  readonly run?: VmRun | undefined;
  /**
   * Where its memory is while the state is `suspended`, and only then: as soon as a vCPU may have run,
   * the disk has moved on, and the state is another.
   */
  readonly suspended?: SavedMemory | undefined;
}

/** What changes with a state. */
export type RecordChange = Pick<VmRecord, 'state'> & Partial<VmRecord>;

/** A record, or what is wrong with it. */
export type RecordEntry =
  | { readonly id: string; readonly record: VmRecord; readonly defect?: undefined }
  | {
      readonly id: string;
      readonly record?: undefined;
      readonly defect: string;
      readonly fromLaterVersion: boolean;
    };

/**
 * Writes a record.
 * @param o as {@link writeWhole}
 * @throws StateDirError the directory is read-only or gone
 * @throws HostError ERR_HOST_DISK_FULL
 */
export async function writeRecord(
  paths: VmPaths,
  record: VmRecord,
  o: { durable?: boolean } = {},
): Promise<void> {
  await writeWhole(paths.recordPath, record, o);
}

/**
 * Reads a record.
 * @returns undefined where there is no such VM
 * @throws StateDirError corrupt, unreadable, or written by a later version
 */
export async function readRecord(paths: VmPaths): Promise<VmRecord | undefined> {
  let text: string;
  try {
    await using file = await open(paths.recordPath, 'r');
    const { size } = await file.stat();
    if (size > MAX_RECORD_BYTES) throw corrupt(paths.recordPath, `it has ${size} bytes`);
    text = await file.readFile('utf8');
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT' || code === 'ENOTDIR') return undefined;
    throw stateFault(error, paths.recordPath);
  }
  return parseRecord(text, paths.recordPath);
}

/** @throws StateDirError no record, or one of a later version */
export function parseRecord(text: string, path: string): VmRecord {
  let data: unknown;
  try {
    data = JSON.parse(text);
  } catch (error) {
    throw corrupt(path, (error as Error).message);
  }
  const record = data as Partial<VmRecord> | null;
  const schema: unknown = record?.schema;
  checkSchema(schema, path);
  if (schema !== STATE_SCHEMA) throw corrupt(path, 'no schema number');
  if (!isVmId(record?.id ?? '')) throw corrupt(path, 'no id');
  if (typeof record?.config?.rootfsPath !== 'string' || typeof record.state !== 'string') {
    throw corrupt(path, 'config or state missing');
  }
  // Processes are killed by these.
  if (![record.owner, record.run?.qemu].every((one) => one === undefined || isIdentity(one))) {
    throw corrupt(path, 'what it says of processes is unclear');
  }
  if (record.run !== undefined && !isIdentity(record.run.starter))
    throw corrupt(path, 'its start is unclear');
  // A directory of this name is removed one day.
  if (record.state === 'suspended' && !(record.run && isSavedName(record.suspended?.name)))
    throw corrupt(path, 'where its memory is, is unclear');
  return record as VmRecord;
}

/**
 * All records, oldest first; broken ones with their defect, at the end.
 * @throws StateDirError the directory cannot be read, or holds a record of a later version
 */
export async function readAllRecords(paths: StatePaths): Promise<RecordEntry[]> {
  const entries = await Promise.all(
    (await listVmIds(paths)).map(async (id): Promise<RecordEntry | undefined> => {
      try {
        const record = await readRecord(vmPaths(paths, id));
        return record && { id, record };
      } catch (error) {
        const defect = (error as Error).message;
        return { id, defect, fromLaterVersion: error instanceof LaterVersionError };
      }
    }),
  );
  // ISO 8601 sorts as text; `~` comes after all digits (of code units, not of a language's order).
  const key = ({ record, id }: RecordEntry) => `${record?.createdAt ?? '~'} ${id}`;
  return entries.filter((entry) => entry !== undefined).sort((a, b) => (key(a) < key(b) ? -1 : 1));
}

/** Ids of all directories that look like a VM's. */
export async function listVmIds(paths: StatePaths): Promise<string[]> {
  const dir = vmsDir(paths);
  try {
    return (await readdir(dir)).filter(isVmId);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
    throw stateFault(error, dir);
  }
}

function corrupt(path: string, defect: string): StateDirError {
  return new StateDirError(`${path} is not a VM record: ${defect}`, {
    path,
    hint: 'Remove what is left of that VM with `qmp-agent gc`.',
  });
}
