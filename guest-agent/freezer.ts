/**
 * Standing still of everything that execs have started, by the cgroup freezer (Linux,
 * Documentation/admin-guide/cgroup-v2.rst, `cgroup.freeze`): a guest is frozen so before its memory is
 * taken, and a copy of it runs nothing of its users' before it has become a machine of its own.
 */
import { existsSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { AGENT_GROUP, EXEC_GROUPS } from './process-tree.ts';
import { RequestError } from './request-error.ts';

/** Until all have come to a stop: a process in the kernel stops when it comes back from there. */
const FREEZE_MS = 5_000;
/** Between two looks. */
const POLL_MS = 2;

/**
 * Stops all processes of all execs; resolves when they stand still.
 * @throws RequestError `ENOSYS` without cgroup v2; `EBUSY` where some do not stop, and all go on then
 */
export async function freezeExecs(root = EXEC_GROUPS): Promise<void> {
  if (!existsSync(root)) throw new RequestError('ENOSYS', 'the guest has no cgroup v2', 501);
  setFrozen(root, true);
  const deadline = performance.now() + FREEZE_MS;
  while (!groups(root).every(isStill)) {
    if (performance.now() >= deadline) {
      thawExecs(root);
      throw new RequestError('EBUSY', `processes did not stand still within ${FREEZE_MS} ms`, 409);
    }
    await delay(POLL_MS);
  }
}

/** Lets them go on. */
export function thawExecs(root = EXEC_GROUPS): void {
  if (existsSync(root)) setFrozen(root, false);
}

function groups(root: string): string[] {
  return readdirSync(root, { withFileTypes: true })
    .filter((entry) => entry.isDirectory() && entry.name !== AGENT_GROUP)
    .map(({ name }) => `${root}/${name}`);
}

function setFrozen(root: string, frozen: boolean): void {
  for (const group of groups(root)) {
    try {
      writeFileSync(`${group}/cgroup.freeze`, frozen ? '1' : '0');
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error; // its exec was forgotten
    }
  }
}

/** A group without processes is never told to be frozen, and need not be. */
function isStill(group: string): boolean {
  try {
    const events = readFileSync(`${group}/cgroup.events`, 'latin1');
    return /^frozen 1$/m.test(events) || /^populated 0$/m.test(events);
  } catch {
    return true; // gone
  }
}
