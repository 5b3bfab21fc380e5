/**
 * A copy of a guest's memory, taken from QEMU's own: /proc/PID/mem read where /proc/PID/pagemap says
 * that there is something (Linux, Documentation/admin-guide/mm/pagemap.rst).
 */
import { open, type FileHandle } from 'node:fs/promises';
import { execa } from 'execa';
import type { QmpClient } from '../../../qmp/index.ts';
import { asDiskFull } from '../../disk-full.ts';
import { HostError, QmpProtocolError } from '../../errors.ts';
import type { WaitOptions } from '../api.ts';

const PAGE_BYTES = 4096;
const ENTRY_BYTES = 8;
/** Of an entry of pagemap, in its upper 32 bits. */
const PRESENT = 0x8000_0000;
const SWAPPED = 0x4000_0000;
/** A page of a file, or of shared memory: not changed since it was mapped copy-on-write. */
const FILE_PAGE = 0x2000_0000;
/** Pages looked at in one read of pagemap: 256 MiB of memory. */
const PAGES_PER_READ = 65_536;
/** Longest piece read and written at once. */
const PIECE_BYTES = 4 * 1024 * 1024;
/** Pieces that are all zeros stay holes. */
const HOLE_BYTES = 64 * 1024;
const ZEROS = Buffer.alloc(HOLE_BYTES);

/** Where a guest's memory is in QEMU's process. */
export interface GuestMemory {
  readonly pid: number;
  /** Virtual address of its first byte. */
  readonly address: number;
  readonly bytes: number;
}

/** Pages from `page` on, `count` of them. */
export interface PageRun {
  readonly page: number;
  readonly count: number;
}

/** Asks QEMU where it has the guest's memory. Works whether the vCPUs run or not. */
export async function locateMemory(
  client: QmpClient,
  { pid, bytes }: { pid: number; bytes: number },
  o: WaitOptions,
): Promise<GuestMemory> {
  const command = { 'command-line': 'gpa2hva 0' };
  const text = await client.execute('human-monitor-command', command, o);
  const address = Number(/ is (0x[0-9a-f]+)/i.exec(text)?.[1]);
  if (Number.isSafeInteger(address) && address > 0) return { pid, address, bytes };
  throw new QmpProtocolError(`QEMU does not say where the guest's memory is: ${text.trim()}`, {
    hint: 'This QEMU cannot be frozen; use 7.2 or later of the distribution.',
  });
}

/**
 * Writes a guest's memory to a file.
 * @param o.over the guest's memory is itself mapped copy-on-write, and the file is a copy of what it was
 *   mapped from: only what is the guest's own is written over it. Else the file must not exist
 * @throws HostError ERR_HOST_PERMISSION another user's QEMU; ERR_HOST_DISK_FULL
 */
export async function copyMemory(
  memory: GuestMemory,
  path: string,
  o: { over: boolean; signal?: AbortSignal | undefined },
): Promise<void> {
  try {
    await using source = await open(`/proc/${memory.pid}/mem`, 'r');
    await using pagemap = await open(`/proc/${memory.pid}/pagemap`, 'r');
    await using target = await open(path, o.over ? 'r+' : 'wx', 0o600);
    if (!o.over) await target.truncate(memory.bytes);
    const pages = memory.bytes / PAGE_BYTES;
    const entries = Buffer.allocUnsafe(PAGES_PER_READ * ENTRY_BYTES);
    for (let first = 0; first < pages; first += PAGES_PER_READ) {
      const count = Math.min(PAGES_PER_READ, pages - first);
      const at = (memory.address / PAGE_BYTES + first) * ENTRY_BYTES;
      await readWhole(pagemap, entries.subarray(0, count * ENTRY_BYTES), at);
      for (const run of ownPages(entries, count)) {
        o.signal?.throwIfAborted();
        await copyRun(source, target, memory, { page: first + run.page, count: run.count }, o.over);
      }
    }
  } catch (error) {
    throw asHostError(error, path);
  }
}

/** A copy of a file with its holes; shares its blocks where the file system can. */
export async function copySparse(from: string, to: string, signal?: AbortSignal): Promise<void> {
  const words = ['--sparse=always', '--reflink=auto', '--', from, to];
  const options = { reject: false, stdin: 'ignore', stdout: 'ignore' } as const;
  const done = await execa('cp', words, { ...options, ...(signal && { cancelSignal: signal }) });
  signal?.throwIfAborted();
  if (!done.failed) return;
  const code = /No space left|Disk quota/.test(done.stderr)
    ? 'ERR_HOST_DISK_FULL'
    : 'ERR_HOST_TOOL';
  throw new HostError(
    code,
    `${from} cannot be copied: ${done.stderr.trim() || done.shortMessage}`,
    {
      hint: 'Free space in the state directory, or set state.dataDir to a larger file system.',
    },
  );
}

/** Runs of pages that the process has and that no file holds for it. Pure. */
export function* ownPages(pagemap: Buffer, count: number): Generator<PageRun> {
  let start = -1;
  for (let page = 0; page < count; page += 1) {
    const flags = pagemap.readUInt32LE(page * ENTRY_BYTES + 4);
    const own = (flags & (PRESENT | SWAPPED)) !== 0 && (flags & FILE_PAGE) === 0;
    if (own && start < 0) start = page;
    if (own || start < 0) continue;
    yield { page: start, count: page - start };
    start = -1;
  }
  if (start >= 0) yield { page: start, count: count - start };
}

async function copyRun(
  source: FileHandle,
  target: FileHandle,
  memory: GuestMemory,
  run: PageRun,
  over: boolean,
): Promise<void> {
  const end = (run.page + run.count) * PAGE_BYTES;
  const piece = Buffer.allocUnsafe(Math.min(PIECE_BYTES, run.count * PAGE_BYTES));
  for (let at = run.page * PAGE_BYTES; at < end; at += piece.length) {
    const bytes = piece.subarray(0, Math.min(piece.length, end - at));
    await readWhole(source, bytes, memory.address + at);
    if (over) await writeWhole(target, bytes, at);
    else await writeUnlessZero(target, bytes, at);
  }
}

/** Keeps holes, so that what the guest never used takes no space. */
async function writeUnlessZero(target: FileHandle, bytes: Buffer, at: number): Promise<void> {
  let from = 0;
  for (let offset = 0; offset < bytes.length; offset += HOLE_BYTES) {
    const part = bytes.subarray(offset, offset + HOLE_BYTES);
    if (!part.equals(ZEROS.subarray(0, part.length))) continue;
    if (offset > from) await writeWhole(target, bytes.subarray(from, offset), at + from);
    from = offset + part.length;
  }
  if (bytes.length > from) await writeWhole(target, bytes.subarray(from), at + from);
}

async function readWhole(file: FileHandle, bytes: Buffer, at: number): Promise<void> {
  for (let done = 0; done < bytes.length;) {
    const { bytesRead } = await file.read(bytes, done, bytes.length - done, at + done);
    if (bytesRead === 0) throw new Error('the memory of QEMU cannot be read');
    done += bytesRead;
  }
}

async function writeWhole(file: FileHandle, bytes: Buffer, at: number): Promise<void> {
  for (let done = 0; done < bytes.length;) {
    done += (await file.write(bytes, done, bytes.length - done, at + done)).bytesWritten;
  }
}

function asHostError(error: unknown, path: string): unknown {
  const { code, message } = error as NodeJS.ErrnoException;
  if (code === 'EACCES' || code === 'EPERM') {
    return new HostError('ERR_HOST_PERMISSION', `the memory of QEMU cannot be read: ${message}`, {
      hint: 'Run as the user who started the VM, in the process that did (kernel.yama.ptrace_scope), or as root.',
      cause: error,
    });
  }
  return asDiskFull(error, path) ?? error;
}
