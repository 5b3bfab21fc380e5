/** Directories of ext4. A hashed one reads as a linear one. Pure. */
import { damaged } from './damage.ts';

const ENTRY_BYTES = 8;
const SLASH = 0x2f;

/** Adds the names in one block of a directory, bytes as `latin1`, without `.` and `..`. @throws DiffError */
export function readNames(block: Buffer, names: Map<string, number>): void {
  for (let at = 0; at + ENTRY_BYTES <= block.length;) {
    const inode = block.readUInt32LE(at);
    const told = block.readUInt16LE(at + 4);
    const length = told === 0 || told === 0xffff ? block.length - at : told; // of a block of 64 KiB
    const nameBytes = block[at + 6] ?? 0;
    const isSound =
      length >= ENTRY_BYTES + nameBytes && length % 4 === 0 && at + length <= block.length;
    if (!isSound) throw damaged('a directory contradicts itself');
    if (inode !== 0) {
      const name = block.subarray(at + ENTRY_BYTES, at + ENTRY_BYTES + nameBytes);
      if (nameBytes === 0 || name.includes(SLASH) || name.includes(0))
        throw damaged('a directory has a name that cannot be');
      const text = name.toString('latin1');
      if (text !== '.' && text !== '..') {
        if (names.has(text)) throw damaged('a directory has a name twice');
        names.set(text, inode);
      }
    }
    at += length;
  }
}
