/** The service that lends taps, as who sets up the host sees it. */
import { mkdir } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import { TimeoutError } from '../../errors.ts';
import { isThere } from '../../host-files.ts';
import { syncService } from '../service/start.ts';
import { LENT_DIR } from './lent-taps.ts';
import { lenderSocket } from './loan.ts';

/** One that runs finds a new user within two seconds. */
const TIMEOUT_MS = 30_000;
const POLL_MS = 50;

/** Resolves when taps are lent to this user. @throws as `syncService`; TimeoutError */
export async function startLending(
  uid: number,
  { signal }: { signal?: AbortSignal | undefined },
): Promise<void> {
  await mkdir(LENT_DIR, { recursive: true, mode: 0o711 }); // others may open what they know the name of
  await syncService(LENT_DIR, { vmId: '', signal });
  const deadline = performance.now() + TIMEOUT_MS;
  while (!(await isThere(lenderSocket(uid)))) {
    if (performance.now() > deadline) {
      throw new TimeoutError('the lending of taps', TIMEOUT_MS, {
        hint: `See ${LENT_DIR}/service.log.`,
      });
    }
    await delay(POLL_MS, undefined, signal === undefined ? {} : { signal });
  }
}
