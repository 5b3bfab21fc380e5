/**
 * What is known of snapshots: name, time and size stand in the qcow2 itself, which alone says what
 * exists; `snapshots.json` adds that for which a qcow2 has no place.
 */
import { readFile } from 'node:fs/promises';
import { ConfigError } from '../errors.ts';
import type { SnapshotInfo } from './snapshot-types.ts';
import { checkSchema, STATE_SCHEMA, stateFault, writeWhole } from './state-dir.ts';

/** The first is a letter: QEMU would take digits for the number that it gives each snapshot. */
const NAME_PATTERN = /^[A-Za-z][A-Za-z0-9._-]{0,62}$/;
const MAX_DESCRIPTION_CHARS = 256;

/** A snapshot as QEMU tells of it: `SnapshotInfo` of qapi/block-core.json. */
export interface RawSnapshot {
  readonly name: string;
  readonly 'vm-state-size': number;
  readonly 'date-sec': number;
  readonly 'date-nsec': number;
}

/** What is noted, and of which snapshot: another may have got the name since. */
export interface SnapshotNote {
  readonly name: string;
  readonly createdAt: string;
  readonly description?: string | undefined;
  /** virtio-serial channels with a session when it was taken. */
  readonly busyChannels?: readonly number[] | undefined;
}

/** @throws ConfigError for a name that a snapshot cannot have */
export function checkSnapshotName(name: string): void {
  if (NAME_PATTERN.test(name)) return;
  throw new ConfigError(`${JSON.stringify(name)} is not a snapshot name`, {
    field: 'snapshot.name',
    value: name,
    hint: 'Start with a letter and use at most 63 letters, digits, ".", "_" and "-".',
  });
}

/** @throws ConfigError for a description that would not fit on a line */
export function checkDescription(description: string): void {
  if (description.length <= MAX_DESCRIPTION_CHARS && /^\P{Cc}*$/u.test(description)) return;
  throw new ConfigError('the description is no line of text, or too long', {
    field: 'snapshot.description',
    value: description,
    hint: `Use at most ${MAX_DESCRIPTION_CHARS} characters, without newlines and control characters.`,
  });
}

/** A name for who gives none: the time, to the millisecond. */
export function defaultSnapshotName(now: Date): string {
  return `s${now.toISOString().replace(/[-:Z]/g, '').replace(/[T.]/g, '-')}`;
}

/** What there is, oldest first: QEMU's snapshots with the descriptions that belong to them. */
export function describeSnapshots(
  raw: readonly RawSnapshot[],
  notes: readonly SnapshotNote[],
): SnapshotInfo[] {
  return raw
    .map((snapshot) => {
      const { name } = snapshot;
      const createdAt = createdAtOf(snapshot);
      const note = notes.find(isOf({ name, createdAt }));
      return {
        name,
        description: note?.description,
        createdAt,
        sizeBytes: snapshot['vm-state-size'],
      };
    })
    .sort((a, b) => (a.createdAt < b.createdAt ? -1 : 1));
}

/** The notes of snapshots that exist. */
export function notesOf(
  snapshots: readonly SnapshotInfo[],
  notes: readonly SnapshotNote[],
): SnapshotNote[] {
  return snapshots.flatMap((snapshot) => notes.filter(isOf(snapshot)));
}

/** Whether a note is of this snapshot. */
export function isOf({ name, createdAt }: Pick<SnapshotNote, 'name' | 'createdAt'>) {
  return (note: SnapshotNote): boolean => note.name === name && note.createdAt === createdAt;
}

/** Reads the notes. A file that says nothing is no reason to lose a snapshot. */
export async function readNotes(path: string): Promise<SnapshotNote[]> {
  let text: string;
  try {
    text = await readFile(path, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
    throw stateFault(error, path);
  }
  return parseNotes(text, path);
}

/** @throws StateDirError written by a later version */
export function parseNotes(text: string, path: string): SnapshotNote[] {
  let data: { schema?: unknown; snapshots?: unknown } | null;
  try {
    data = JSON.parse(text) as typeof data;
  } catch {
    return [];
  }
  checkSchema(data?.schema, path);
  return Array.isArray(data?.snapshots) ? data.snapshots.filter(isNote) : [];
}

/** Writes the notes. @throws StateDirError, HostError ERR_HOST_DISK_FULL */
export async function writeNotes(path: string, snapshots: readonly SnapshotNote[]): Promise<void> {
  await writeWhole(path, { schema: STATE_SCHEMA, snapshots });
}

function isNote(value: unknown): value is SnapshotNote {
  const note = (value ?? {}) as Partial<Record<string, unknown>>;
  const { name, createdAt, description, busyChannels } = note;
  return (
    [name, createdAt, description ?? ''].every((member) => typeof member === 'string') &&
    (busyChannels === undefined ||
      (Array.isArray(busyChannels) && busyChannels.every(Number.isInteger)))
  );
}

function createdAtOf(snapshot: RawSnapshot): string {
  const ms = snapshot['date-sec'] * 1_000 + Math.floor(snapshot['date-nsec'] / 1e6);
  return new Date(ms).toISOString();
}
