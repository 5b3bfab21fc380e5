/**
 * The snapshots that a qcow2 file holds, read from the file itself, whether a QEMU has it open or not:
 * QEMU writes the table at once. Format: see `qcow2-header.ts`, "Snapshots".
 */
import { open, type FileHandle } from 'node:fs/promises';

/** A snapshot in a disk's file. */
export interface DiskSnapshot {
  readonly name: string;
  /** Of the memory and devices in it. */
  readonly stateBytes: number;
}

/** A snapshot, and where the table of its disk's clusters is. */
export interface MappedSnapshot extends DiskSnapshot {
  readonly l1Offset: number;
  readonly l1Entries: number;
}

/** `nb_snapshots` and `snapshots_offset`. */
const HEADER_COUNT_OFFSET = 60;
const HEADER_TABLE_OFFSET = 64;
const HEADER_BYTES = 72;
/** An entry before its extra data, id and name. */
const ENTRY_BYTES = 40;
const EXTRA_STATE_BYTES = 8;
/** QEMU's own limits: 65536 snapshots, a table of 64 MiB; ours are a handful. */
const MAX_SNAPSHOTS = 4096;
const MAX_TABLE_BYTES = 1024 * 1024;

/** The snapshots in a qcow2 file; none where it is gone, or the table says nothing. */
export async function readSnapshots(path: string): Promise<MappedSnapshot[]> {
  let file: FileHandle;
  try {
    file = await open(path, 'r');
  } catch {
    return [];
  }
  try {
    const header = await readAt(file, 0, HEADER_BYTES);
    if (header.length < HEADER_BYTES) return [];
    const count = header.readUInt32BE(HEADER_COUNT_OFFSET);
    const offset = Number(header.readBigUInt64BE(HEADER_TABLE_OFFSET));
    if (count === 0 || count > MAX_SNAPSHOTS || !Number.isSafeInteger(offset)) return [];
    return parseSnapshots(await readAt(file, offset, MAX_TABLE_BYTES), count);
  } finally {
    await file.close();
  }
}

/** Reads so many entries of a snapshot table, or as many as are whole. Pure. */
export function parseSnapshots(table: Buffer, count: number): MappedSnapshot[] {
  const found: MappedSnapshot[] = [];
  let at = 0;
  while (found.length < count && at + ENTRY_BYTES <= table.length) {
    const idBytes = table.readUInt16BE(at + 12);
    const nameBytes = table.readUInt16BE(at + 14);
    const extraBytes = table.readUInt32BE(at + 36);
    const extraAt = at + ENTRY_BYTES;
    const nameAt = extraAt + extraBytes + idBytes;
    if (nameAt + nameBytes > table.length) break;
    const stateBytes =
      extraBytes >= EXTRA_STATE_BYTES
        ? Number(table.readBigUInt64BE(extraAt))
        : table.readUInt32BE(at + 32);
    const name = table.toString('utf8', nameAt, nameAt + nameBytes);
    const l1Offset = Number(table.readBigUInt64BE(at));
    found.push({ name, stateBytes, l1Offset, l1Entries: table.readUInt32BE(at + 8) });
    at = Math.ceil((nameAt + nameBytes) / 8) * 8;
  }
  return found;
}

async function readAt(file: FileHandle, offset: number, length: number): Promise<Buffer> {
  const { buffer, bytesRead } = await file.read(Buffer.alloc(length), 0, length, offset);
  return buffer.subarray(0, bytesRead);
}
