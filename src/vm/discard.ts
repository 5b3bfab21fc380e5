/** The end of an ephemeral VM: all of it goes, also where some of it resists. */
import { rm } from 'node:fs/promises';
import { events } from '../events.ts';
import { step } from '../steps.ts';
import type { StatePaths } from './api.ts';
import { isOnCheckpoint, removeUnusedCheckpoints } from './fork/checkpoint.ts';
import type { LiveVm } from './live-vm.ts';
import { givePlaceBack } from './network-of.ts';
import type { VmRecord } from './record.ts';
import { kill } from './shutdown.ts';
import { vmPaths } from './vm-paths.ts';

/** Kills QEMU and removes its files. @returns how much is left; each of it has been announced */
export async function discardVm(
  { id: vmId, config }: VmRecord,
  live: LiveVm | undefined,
  paths: StatePaths,
): Promise<number> {
  const files = vmPaths(paths, vmId);
  let leftovers = 0;
  const attempt = async (what: string, action: () => Promise<unknown>) => {
    await action().catch((error: unknown) => {
      leftovers += 1;
      const message = `${what}: ${error instanceof Error ? error.message : String(error)}`;
      const hint = 'Run `qmp-agent gc` to take away what is left.';
      events.emit('host.warning', { vmId, code: 'vm.leftover', message, hint });
    });
  };
  step('discard', 'kill', vmId);
  if (live !== undefined) {
    await attempt('ending QEMU', () => kill(live));
    await attempt('closing its connections', () => live.release());
  }
  await attempt('giving its tap back', () => givePlaceBack({ id: vmId, files, config }));
  step('discard', 'files', vmId);
  for (const path of [files.runtimeDir, files.dir]) {
    await attempt(`removing ${path}`, () =>
      rm(path, { recursive: true, force: true, maxRetries: 2 }),
    );
  }
  if (isOnCheckpoint(paths, config)) await removeUnusedCheckpoints(paths).catch(() => undefined); // gc will
  return leftovers;
}
