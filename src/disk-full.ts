/** A file system of the host that has no space left. */
import { HostError } from './errors.ts';

const HINT =
  'Free space there, remove VMs you no longer need, or set state.dataDir to a larger file system.';

/** The named error, where that is what the system's error says (a user's quota counts, too); else undefined. */
export function asDiskFull(error: unknown, what: string, hint = HINT): HostError | undefined {
  const code = (error as NodeJS.ErrnoException | undefined)?.code;
  if (code !== 'ENOSPC' && code !== 'EDQUOT') return undefined;
  return new HostError('ERR_HOST_DISK_FULL', `no space left for ${what}`, { hint, cause: error });
}
