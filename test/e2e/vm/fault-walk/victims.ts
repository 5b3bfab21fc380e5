/** How they die. */
import { connect } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import { findQemus } from '../../../../src/vm/gc.ts';
import { logsOf } from '../../../../src/vm/logs.ts';
import { isAlive } from '../../../../src/vm/process-identity.ts';
import type { StatePaths } from '../../../../src/vm/api.ts';
import { vmPaths } from '../../../../src/vm/vm-paths.ts';

/** A guest whose vCPUs run has killed its agent by then; in another the agent dies as soon as they run. */
const AGENT_MS = 1_000;
const POLL_MS = 20;

/** @returns whether there was any */
export async function killQemu(vmId: string): Promise<boolean> {
  const found = await findQemus(vmId);
  for (const { pid } of found) process.kill(pid, 'SIGKILL');
  while (found.some((one) => isAlive(one))) await delay(POLL_MS);
  return found.length > 0;
}

/** By the serial console, at which a process in the guest listens: the agent's channels are in use. */
export async function killAgent(paths: StatePaths, vmId: string): Promise<void> {
  const files = vmPaths(paths, vmId);
  const { consoleLog } = logsOf(files);
  const deaths = async () => (await consoleLog.recent(2 ** 16)).split('agent killed').length;
  const before = await deaths();
  const socket = connect({ path: files.consoleSocketPath });
  await new Promise<void>((resolve, reject) => {
    socket.on('error', reject);
    socket.write('die\n', () => resolve());
  });
  const deadline = performance.now() + AGENT_MS;
  while ((await deaths()) === before && performance.now() < deadline) await delay(POLL_MS);
  socket.destroy();
}
