/** What is said of a file system that cannot be read. */
import { DiffError } from '../../errors.ts';

/** Something contradicts itself: damaged, or made to mislead. */
export function damaged(what: string): DiffError {
  return new DiffError('ERR_DIFF_FILE_SYSTEM', `the file system is damaged: ${what}`, {
    hint: 'Check it in the VM (`fsck.ext4`), or look for its files there.',
  });
}

/** No ext4, or one with what we cannot read. */
export function unsupported(what: string): DiffError {
  return new DiffError('ERR_DIFF_FILE_SYSTEM', `the disk cannot be read: ${what}`, {
    hint: 'Only disks that are one ext4 file system, as those of images are, can be compared.',
  });
}
