/** Taking a machine's memory, devices and disk at one instant. */
import { dirname } from 'node:path';
import type { NetworkSpec } from '../../../guest-agent/protocol.ts';
import type { QmpClient } from '../../../qmp/index.ts';
import { eitherSignal } from '../abort.ts';
import type { Accel, WaitOptions } from '../api.ts';
import { NETDEV, NIC_DEVICE, portOfChannel } from '../argv.ts';
import { guestNetworkOf } from '../network-of.ts';
import { findQemu } from '../launcher.ts';
import type { LiveVm } from '../live-vm.ts';
import type { VmConfig } from '../record.ts';
import { requireWhole } from '../resume.ts';
import type { VmInside } from '../vm-inside.ts';
import { allOrNone } from './all-or-none.ts';
import { guestCpu } from './guest-cpu.ts';
import { templateFiles } from './manifest.ts';
import { ownIdentityOf } from './own.ts';
import { requireMemoryRoom } from './memory-dir.ts';
import { copyMemory, copySparse, locateMemory } from './memory.ts';
import { saveState } from './state.ts';

/** Gigabytes of memory on a slow disk. */
const FREEZE_MS = 120_000;
/** From the end of a session to an agent that waits for the next. */
const HANG_UP_MS = 30_000;
const MIB = 2 ** 20;
/** Of a template without: addresses that nobody has (RFC 5737). */
const ANY_NETWORK: NetworkSpec = {
  ...{ up: true, address: '192.0.2.1', prefix: 31, gateway: '192.0.2.0', dns: [] },
};

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
    await rehearse(vm, live, o);
    const session = await live.link.open(o);
    await session.park(o);
    const memoryBytes = memoryMib * MIB;
    await requireMemoryRoom(dirname(target), { pid, memoryBytes });
    const pausedMs = await live.qmp.use(async (client) => {
      await hangUp(live, client, o);
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
 * Does once what each clone begins with. The agent's code for it is compiled then, and what it needs of
 * the image in memory; a clone that does so for the first time takes twice as long. All that was written
 * so far is on the disk then: a clone that loses its power has what was provisioned, and no clone
 * writes it a second time.
 */
async function rehearse(vm: VmInside, live: LiveVm, o: WaitOptions): Promise<void> {
  const session = await live.link.open(o);
  const { config } = vm;
  const { hostname } = config;
  const network = config.network && ((await guestNetworkOf(vm)) ?? ANY_NETWORK);
  await session.renew(ownIdentityOf({ hostname, durable: true, network }), o);
  if (network !== undefined) await session.setNetwork({ up: false }, o); // a clone may have none
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

/** On virtio-serial, waits until the agent has opened its end anew: only then does it wait for a host. */
async function hangUp(live: LiveVm, client: QmpClient, o: WaitOptions): Promise<void> {
  const { channel } = live.link;
  if (channel === undefined) return live.link.hangUp();
  const reopened = client.waitForEvent('VSERPORT_CHANGE', {
    match: ({ data }) => data.id === portOfChannel(channel) && data.open,
    signal: o.signal,
    timeoutMs: HANG_UP_MS,
  });
  reopened.catch(() => undefined); // where the session does not end, that is what counts
  await live.link.hangUp();
  await reopened;
}
