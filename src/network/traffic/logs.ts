/** The network logs of all VMs that a service serves: what is logged finds its VM by its interface. */
import { setTimeout as delay } from 'node:timers/promises';
import type { EventOf } from '../../events.ts';
import type { NetworkEntry } from '../entry.ts';
import { ifindexOf } from '../tap.ts';
import { TrafficLog } from './log-file.ts';
import type { LoggedPacket } from './nflog.ts';
import { recordOf } from './record.ts';

/** Addresses whose names are remembered per VM. */
const MAX_NAMES = 4_096;

interface VmLog {
  readonly entry: NetworkEntry;
  readonly ifindex: number;
  readonly log: TrafficLog;
  /** By address; the latest last. */
  readonly names: Map<string, string>;
}

/** See above. */
export class TrafficLogs {
  readonly #byId = new Map<string, VmLog>();
  readonly #byIfindex = new Map<number, VmLog>();

  /** A VM is there, or has changed. */
  async set(entry: NetworkEntry): Promise<void> {
    const known = this.#byId.get(entry.vmId);
    const vm: VmLog = {
      entry,
      ifindex: await ifindexOf(entry.network.tap),
      log: known?.log ?? new TrafficLog(entry.logPath, { isOpen: entry.isLogOpen }),
      names: known?.names ?? new Map<string, string>(),
    };
    this.remove(entry.vmId);
    this.#byId.set(entry.vmId, vm);
    if (vm.ifindex !== 0) this.#byIfindex.set(vm.ifindex, vm);
  }

  remove(vmId: string): void {
    const vm = this.#byId.get(vmId);
    if (vm === undefined) return;
    this.#byId.delete(vmId);
    if (this.#byIfindex.get(vm.ifindex) === vm) this.#byIfindex.delete(vm.ifindex);
  }

  /** Out of a VM or, where another sent it, into one. */
  addPacket(packet: LoggedPacket): void {
    const vm = this.#byIfindex.get(packet.inDevice) ?? this.#byIfindex.get(packet.outDevice);
    if (vm === undefined) return;
    const record = recordOf(packet, vm.entry, (address) => vm.names.get(address));
    if (record !== undefined) vm.log.add(record);
  }

  addQuery(event: EventOf<'dns.query'>): void {
    const { vmId, type: _, ...query } = event;
    const vm = vmId === undefined ? undefined : this.#byId.get(vmId);
    if (vm === undefined) return;
    const told = query.verdict === 'answered' ? (query.addresses ?? []) : [];
    for (const address of told) {
      vm.names.delete(address);
      vm.names.set(address, query.name);
    }
    for (const oldest of vm.names.keys()) {
      if (vm.names.size <= MAX_NAMES) break;
      vm.names.delete(oldest);
    }
    vm.log.add({ kind: 'dns', ...query, remedy: remedyOf(event) });
  }

  /** Resolves when all of it has been written. Of a VM that goes on, that need never be. */
  async settle(): Promise<void> {
    await Promise.all([...this.#byId.values()].map(({ log }) => log.settle()));
  }

  /** The same of some VMs alone, and at the latest after `timeoutMs`. */
  async settleOf(vmIds: readonly string[], timeoutMs: number): Promise<void> {
    const timer = new AbortController();
    const late = delay(timeoutMs, undefined, { signal: timer.signal }).catch(() => undefined);
    const settled = Promise.all(vmIds.map(async (id) => this.#byId.get(id)?.log.settle()));
    await Promise.race([settled, late]);
    timer.abort();
  }
}

/** The flag that would have it answered; undefined where none does. */
function remedyOf({ verdict, rule, name, addresses }: EventOf<'dns.query'>): string | undefined {
  if (verdict === 'rebinding') return `--allow-cidr ${addresses?.join(' --allow-cidr ') ?? ''}`;
  return verdict === 'refused' && rule === 'not-allowed' ? `--allow-domain ${name}` : undefined;
}
