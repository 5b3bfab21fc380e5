/** What the memory of a QEMU process is made of, by proc_pid_smaps(5). */
import { readFile } from 'node:fs/promises';

/** Proportional set sizes, bytes. */
export interface ProcessMemory {
  /** Guest memory that the VM has written to, or that nobody else maps. */
  readonly guestOwn: number;
  /** Guest memory that is still the template's: its part of what all clones map. */
  readonly guestShared: number;
  /** What TCG has translated. */
  readonly codeCache: number;
  /** QEMU's own data, stacks, and the memory of a guest that stands on no file. */
  readonly heap: number;
  /** QEMU's program and libraries: its part of them. */
  readonly program: number;
}

/** One mapping of smaps: its head and the fields that count here, kB. */
interface Mapping {
  readonly permissions: string;
  readonly path: string;
  readonly pss: number;
  readonly anonymous: number;
}

const KIB = 1024;
const HEAD = /^[0-9a-f]+-[0-9a-f]+ (\S{4}) \S+ \S+ \d+ *(.*)$/;

/** @param templateDir where the file is that guest memory may be mapped from */
export async function memoryOf(pid: number, templateDir: string): Promise<ProcessMemory> {
  return divideMemory(await readFile(`/proc/${pid}/smaps`, 'latin1'), templateDir);
}

/** See {@link memoryOf}. Pure. */
export function divideMemory(smaps: string, templateDir: string): ProcessMemory {
  const sums = { guestOwn: 0, guestShared: 0, codeCache: 0, heap: 0, program: 0 };
  for (const { permissions, path, pss, anonymous } of mappings(smaps)) {
    if (path.startsWith(`${templateDir}/`)) {
      sums.guestOwn += anonymous * KIB;
      sums.guestShared += (pss - anonymous) * KIB;
    } else if (path.startsWith('/') && !path.startsWith('/memfd:')) {
      sums.program += pss * KIB;
    } else {
      sums[permissions.includes('x') ? 'codeCache' : 'heap'] += pss * KIB;
    }
  }
  return sums;
}

/** All of it, bytes. */
export function sumMemory(memory: ProcessMemory): number {
  const { guestOwn, guestShared, codeCache, heap, program } = memory;
  return guestOwn + guestShared + codeCache + heap + program;
}

function mappings(smaps: string): Mapping[] {
  const found: Mapping[] = [];
  let head: { permissions: string; path: string } | undefined;
  let pss = 0;
  for (const line of smaps.split('\n')) {
    const match = HEAD.exec(line);
    if (match !== null) head = { permissions: match[1] ?? '', path: match[2] ?? '' };
    const [field = '', value] = line.split(/:? +/);
    if (field === 'Pss') pss = Number(value);
    // After Pss, in the order of the kernel's fs/proc/task_mmu.c.
    if (field === 'Anonymous' && head !== undefined)
      found.push({ ...head, pss, anonymous: Number(value) });
  }
  return found;
}
