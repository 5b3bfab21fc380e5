/** Small files of the guest's that get another text. */
import { closeSync, constants, fstatSync, ftruncateSync, openSync, writeFileSync } from 'node:fs';

/**
 * Makes a file hold this text, in the blocks that it has. `writeFileSync` cuts it to nothing first: ext4 then
 * gives the block back, takes another, and writes it to the disk as soon as the file is closed (ext4(5),
 * `auto_da_alloc`), a tenth of all that a copy of a guest does before it is a machine of its own.
 *
 * @param mode permission bits of a file that is not there yet
 */
export function putText(path: string, text: string, mode = 0o644): void {
  const fd = openSync(path, constants.O_WRONLY | constants.O_CREAT, mode);
  try {
    const bytes = Buffer.from(text);
    writeFileSync(fd, bytes);
    if (fstatSync(fd).size > bytes.length) ftruncateSync(fd, bytes.length);
  } finally {
    closeSync(fd);
  }
}
