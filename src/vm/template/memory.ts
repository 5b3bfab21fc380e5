/**
 * A copy of a guest's memory, taken from QEMU's own: /proc/PID/mem read where /proc/PID/pagemap says
 * that there is something (Linux, Documentation/admin-guide/mm/pagemap.rst).
 */
import { open, type FileHandle } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import { setTimeout as delay } from 'node:timers/promises';
import { execa } from 'execa';
import type { QmpClient } from '../../../qmp/index.ts';
import { asDiskFull } from '../../disk-full.ts';
import { HostError, QmpProtocolError, VmDiedError } from '../../errors.ts';
import { openMemoryFile, type MemoryFile } from './memory-file.ts';
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
/** Longest piece read and written at once: 1 MiB, so that a processor's cache holds it. */
const PIECE_PAGES = 256;
/** Pieces under way at once, each in a thread of libuv's pool, which has four. */
const LANES = Math.min(4, Math.max(2, availableParallelism()));
/** So few pages between two runs are copied with them: a call costs more. */
const GAP_PAGES = 8;
/** Pieces that are all zeros stay holes. */
const HOLE_BYTES = 64 * 1024;
const ZEROS = Buffer.alloc(HOLE_BYTES);
/** Until whoever watches over QEMU has noticed its death. */
const DEATH_MS = 1_000;

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

/** How memory is copied. */
export interface CopyOptions {
  /**
   * The file that the guest's memory is mapped from, copy-on-write: it is copied first, and only what is
   * the guest's own is written over that. Undefined: it is mapped from none.
   */
  readonly below: string | undefined;
  readonly signal?: AbortSignal | undefined;
}

/**
 * Writes a guest's memory to a file, which must not exist.
 * @throws HostError ERR_HOST_PERMISSION another user's QEMU; ERR_HOST_DISK_FULL
 */
export async function copyMemory(memory: GuestMemory, path: string, o: CopyOptions): Promise<void> {
  await using copy = await MemoryCopy.open(memory, path, o);
  await copy.take(o.signal);
}

/**
 * A copy that may be taken twice: while the guest runs, so that the file has its blocks and pages, and
 * once more while it stands still, which takes half as long then.
 */
export class MemoryCopy implements AsyncDisposable {
  readonly #memory: GuestMemory;
  readonly #path: string;
  readonly #over: boolean;
  readonly #files: { source: FileHandle; pagemap: FileHandle; target: MemoryFile };
  /** For each page: 1 where the file has it. Zeros are written only over what is none. */
  readonly #written: Uint8Array;

  private constructor(
    memory: GuestMemory,
    path: string,
    over: boolean,
    files: { source: FileHandle; pagemap: FileHandle; target: MemoryFile },
  ) {
    this.#memory = memory;
    this.#path = path;
    this.#over = over;
    this.#files = files;
    this.#written = new Uint8Array(memory.bytes / PAGE_BYTES).fill(over ? 1 : 0);
  }

  /** As {@link copyMemory}; only what is below is copied yet. */
  static async open(memory: GuestMemory, path: string, o: CopyOptions): Promise<MemoryCopy> {
    const over = o.below !== undefined;
    if (over) await copySparse(o.below, path, o.signal);
    const opened: { close(): Promise<void> }[] = [];
    const take = async <T extends { close(): Promise<void> }>(opening: Promise<T>): Promise<T> => {
      const file = await opening;
      opened.push(file);
      return file;
    };
    try {
      const source = await take(openOf(memory.pid, 'mem'));
      const pagemap = await take(openOf(memory.pid, 'pagemap'));
      const target = await take(openMemoryFile(path, over ? undefined : memory.bytes));
      return new MemoryCopy(memory, path, over, { source, pagemap, target });
    } catch (error) {
      for (const file of opened) await file.close();
      throw asHostError(error, path);
    }
  }

  /** Copies what there is now. */
  async take(signal?: AbortSignal): Promise<void> {
    try {
      const pieces = this.#pieces(signal);
      const lanes = Array.from({ length: LANES }, () =>
        this.#copyAll(pieces).catch(async (error: unknown) => {
          await pieces.return(undefined); // the others end, too
          throw error;
        }),
      );
      const ends = await Promise.allSettled(lanes);
      for (const end of ends) if (end.status === 'rejected') throw end.reason;
    } catch (error) {
      // Who watches over QEMU knows a moment later, and more: what it died of.
      if (error instanceof VmDiedError)
        await delay(DEATH_MS, undefined, { signal }).catch(() => signal?.throwIfAborted());
      throw asHostError(error, this.#path);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const file of Object.values(this.#files)) await file.close();
  }

  /** Pieces of what has to be copied. */
  async *#pieces(signal: AbortSignal | undefined): AsyncGenerator<PageRun, void> {
    const { address, bytes } = this.#memory;
    const pages = bytes / PAGE_BYTES;
    const entries = Buffer.allocUnsafe(PAGES_PER_READ * ENTRY_BYTES);
    // What lies between two pages of the guest's own is read from the file that it was mapped from.
    const maxGap = this.#over ? GAP_PAGES : 0;
    for (let first = 0; first < pages; first += PAGES_PER_READ) {
      const count = Math.min(PAGES_PER_READ, pages - first);
      const at = (address / PAGE_BYTES + first) * ENTRY_BYTES;
      await readWhole(this.#files.pagemap, entries.subarray(0, count * ENTRY_BYTES), at);
      for (const run of joined(ownPages(entries, count), maxGap)) {
        for (let done = 0; done < run.count; done += PIECE_PAGES) {
          signal?.throwIfAborted();
          const left = Math.min(PIECE_PAGES, run.count - done);
          yield { page: first + run.page + done, count: left };
        }
      }
    }
  }

  async #copyAll(pieces: AsyncIterator<PageRun, void>): Promise<void> {
    const { source, target } = this.#files;
    const buffer = Buffer.allocUnsafe(PIECE_PAGES * PAGE_BYTES);
    for (;;) {
      const next = await pieces.next();
      if (next.done === true) return;
      const { page, count } = next.value;
      const at = page * PAGE_BYTES;
      const bytes = buffer.subarray(0, count * PAGE_BYTES);
      await readWhole(source, bytes, this.#memory.address + at);
      if (this.#over) await target.write(bytes, at);
      else await this.#writeUnlessZero(bytes, at);
    }
  }

  /** Keeps holes, so that what the guest never used takes no space. */
  async #writeUnlessZero(bytes: Buffer, at: number): Promise<void> {
    const { target } = this.#files;
    const write = async (from: number, end: number) => {
      if (end <= from) return;
      await target.write(bytes.subarray(from, end), at + from);
      this.#written.fill(1, (at + from) / PAGE_BYTES, (at + end) / PAGE_BYTES);
    };
    let from = 0;
    for (let offset = 0; offset < bytes.length; offset += HOLE_BYTES) {
      const part = bytes.subarray(offset, offset + HOLE_BYTES);
      const page = (at + offset) / PAGE_BYTES;
      const isHole =
        part.equals(ZEROS.subarray(0, part.length)) &&
        !this.#written.subarray(page, page + part.length / PAGE_BYTES).includes(1);
      if (!isHole) continue;
      await write(from, offset);
      from = offset + part.length;
    }
    await write(from, bytes.length);
  }
}

/** A copy of a file with its holes; shares its blocks where the file system can. */
export async function copySparse(from: string, to: string, signal?: AbortSignal): Promise<void> {
  const words = ['--sparse=always', '--reflink=auto', '--', from, to];
  const options = { reject: false, stdin: 'ignore', stdout: 'ignore' } as const;
  const done = await execa('cp', words, { ...options, ...(signal && { cancelSignal: signal }) });
  signal?.throwIfAborted();
  if (!done.failed) return;
  // Where it could not even be started there is none, whatever the type says.
  const stderr = String((done as { stderr?: string }).stderr ?? '').trim();
  const code = /No space left|Disk quota/.test(stderr) ? 'ERR_HOST_DISK_FULL' : 'ERR_HOST_TOOL';
  throw new HostError(code, `${from} cannot be copied: ${stderr || done.shortMessage}`, {
    hint: 'Free space in the state directory, or set state.dataDir to a larger file system.',
  });
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

/** Runs with no more than so many pages between them as one. Pure. */
export function* joined(runs: Iterable<PageRun>, maxGap: number): Generator<PageRun> {
  let last: PageRun | undefined;
  for (const run of runs) {
    if (last !== undefined && run.page - (last.page + last.count) <= maxGap) {
      last = { page: last.page, count: run.page + run.count - last.page };
      continue;
    }
    if (last !== undefined) yield last;
    last = run;
  }
  if (last !== undefined) yield last;
}

/** Of a process in /proc. @throws VmDiedError it is gone */
function openOf(pid: number, name: 'mem' | 'pagemap'): Promise<FileHandle> {
  return open(`/proc/${pid}/${name}`, 'r').catch((error: unknown) => {
    const { code } = error as NodeJS.ErrnoException;
    throw code === 'ENOENT' || code === 'ESRCH' ? gone() : error;
  });
}

function gone(): VmDiedError {
  return new VmDiedError('QEMU is gone, and its memory with it');
}

async function readWhole(file: FileHandle, bytes: Buffer, at: number): Promise<void> {
  for (let done = 0; done < bytes.length;) {
    const { bytesRead } = await file.read(bytes, done, bytes.length - done, at + done);
    if (bytesRead === 0) throw gone();
    done += bytesRead;
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
