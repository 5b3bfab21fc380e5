/** Taking a machine's memory, devices and disk at one instant. */
import { dirname } from 'node:path';
import type { QmpClient } from '../../../qmp/index.ts';
import { eitherSignal } from '../abort.ts';
import type { Accel, WaitOptions } from '../api.ts';
import { NETDEV, NIC_DEVICE } from '../argv.ts';
import { findQemu } from '../launcher.ts';
import type { VmConfig } from '../record.ts';
import { requireWhole } from '../resume.ts';
import type { VmInside } from '../vm-inside.ts';
import { allOrNone } from './all-or-none.ts';
import { guestCpu } from './guest-cpu.ts';
import { templateFiles } from './manifest.ts';
import { requireMemoryRoom } from './memory-dir.ts';
import { copyMemory, copySparse, locateMemory } from './memory.ts';
import { rehearse } from './rehearse.ts';
import { saveState } from './state.ts';

/** Gigabytes of memory on a slow disk. */
const FREEZE_MS = 120_000;
const MIB = 2 ** 20;

/** What was frozen. */
export interface Frozen {
  readonly config: VmConfig;
  readonly accel: Accel;
  readonly ports: number;
  readonly qemuVersion: string;
  readonly cpu: string | undefined;
  readonly memoryBytes: number;
  /** Disks under the frozen one, the nearest first. */
  readonly backingPaths: readonly string[];
  /** How long it took to take all, ms; the vCPUs stand still from its begin on. */
  readonly pausedMs: number;
}

/**
 * Freezes a running VM into a directory. What execs have started is brought to a stop first, and our
 * session ended, so that a copy wakes up with nothing in its hands. The vCPUs stand still afterwards.
 * @param given.memoryPath where the memory goes; default: into the directory
 * @throws StateError, GuestRequestError (EBUSY), HostError, QmpError, TimeoutError
 */
export async function freezeVm(
  vm: VmInside,
  dir: string,
  given: WaitOptions & { memoryPath?: string | undefined },
): Promise<Frozen> {
  const bounds = { ...given, timeoutMs: given.timeoutMs ?? FREEZE_MS };
  const files = templateFiles(dir);
  const target = given.memoryPath ?? files.memoryPath;
  return vm.exclusively(['running'], bounds, async (live) => {
    requireWhole(vm);
    const { fault } = live.watch; // a full disk under a guest that flushes, or QEMU's death
    const signal = eitherSignal(fault, given.signal);
    const o = { ...bounds, signal };
    const { accel, ports, memoryPath } = live.run;
    const { pid } = live.process.identity;
    const { template, rootfsPath, memoryMib, qemuPath } = vm.config;
    const memoryBytes = memoryMib * MIB;
    await requireMemoryRoom(dirname(target), { pid, memoryBytes });
    const pausedMs = await live.qmp.use(async (client) => {
      await rehearse(vm, { live, client }, o);
      const memory = await locateMemory(client, { pid, bytes: memoryBytes }, o);
      const pausedAt = performance.now();
      await client.execute('stop', {}, o); // flushes the disk, too
      await vm.note('paused');
      await unplug(client, vm, o);
      await saveState(client, files.statePath, o);
      await allOrNone(o.signal, (signal) => [
        copyMemory(memory, target, { below: memoryPath, signal }),
        copySparse(vm.files.diskPath, files.diskPath, signal),
      ]);
      return performance.now() - pausedAt;
    }, o);
    const [{ version }, cpu] = await Promise.all([findQemu(qemuPath), guestCpu(accel)]);
    return {
      ...{ config: vm.config, accel, ports, cpu, memoryBytes },
      qemuVersion: version,
      backingPaths: template?.diskPaths ?? [rootfsPath],
      pausedMs: Math.round(pausedMs),
    };
  });
}

/**
 * Takes away what the network device is joined to, and makes it look as if it were joined to something: a
 * clone may be joined to something else, or to nothing, and the user-mode network has a state of its own.
 */
async function unplug(client: QmpClient, { config }: VmInside, o: WaitOptions): Promise<void> {
  if (config.network === undefined || config.network === 'isolated') return;
  await client.execute('netdev_del', { id: NETDEV }, o);
  await client.execute('set_link', { name: NIC_DEVICE, up: true }, o);
}
