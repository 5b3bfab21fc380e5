/** The file that a guest's memory is written to. */
import { open, statfs, type FileHandle } from 'node:fs/promises';
import { libc } from '../../../guest-agent/libc.ts';
import { HUGETLBFS } from './memory-dir.ts';

/** Open for writing. */
export interface MemoryFile {
  write(bytes: Buffer, at: number): Promise<void>;
  close(): Promise<void>;
}

/**
 * Opens it. On hugetlbfs it is written to by a mapping, as such files know no write(2).
 * @param newBytes makes it, so long, of nothing but holes. Undefined: it is there
 * @throws the system's own error
 */
export async function openMemoryFile(
  path: string,
  newBytes: number | undefined,
): Promise<MemoryFile> {
  const file = await open(path, newBytes === undefined ? 'r+' : 'wx+', 0o600);
  try {
    if (newBytes === undefined) return plain(file);
    await file.truncate(newBytes);
    return (await statfs(path)).type === HUGETLBFS ? await mapped(file, newBytes) : plain(file);
  } catch (error) {
    await file.close();
    throw error;
  }
}

function plain(file: FileHandle): MemoryFile {
  return { write: (bytes, at) => writeWhole(file, bytes, at), close: () => file.close() };
}

async function mapped(file: FileHandle, bytes: number): Promise<MemoryFile> {
  const { address, unmap } = (await libc()).mapShared(file.fd, bytes);
  try {
    const own = await open('/proc/self/mem', 'r+');
    return {
      write: (piece, at) => writeWhole(own, piece, address + at),
      close: async () => {
        await own.close();
        unmap();
        await file.close();
      },
    };
  } catch (error) {
    unmap();
    throw error;
  }
}

async function writeWhole(file: FileHandle, bytes: Buffer, at: number): Promise<void> {
  for (let done = 0; done < bytes.length;) {
    done += (await file.write(bytes, done, bytes.length - done, at + done)).bytesWritten;
  }
}
