/** The lock that is held around changes of a VM's state. */
import type { WaitOptions } from './api.ts';
import { FileLock } from './file-lock.ts';
import { goneVm } from './find-vm.ts';

/** Waits for the machine lock. @throws TimeoutError, NotFoundError the VM was removed */
export async function lockMachine(id: string, path: string, o: WaitOptions): Promise<FileLock> {
  try {
    return await FileLock.acquire(path, { ...o, operation: `the lock of VM ${id}` });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') throw goneVm(id);
    throw error;
  }
}
