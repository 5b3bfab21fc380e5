/** `vm.snapshots`. */
import type { QmpClient } from '../../qmp/index.ts';
import { ConfigError, NotFoundError } from '../errors.ts';
import { events } from '../events.ts';
import { step } from '../steps.ts';
import { prepareToBeSaved } from './before-save.ts';
import { connectedChannels } from './connected-channels.ts';
import { setClock } from './guest-clock.ts';
import type { LiveVm } from './live-vm.ts';
import { requireUnparked, requireWhole, wakeRestored } from './resume.ts';
import { deleteSnapshot, loadSnapshot, querySnapshots, saveSnapshot } from './snapshot-jobs.ts';
import {
  checkDescription,
  checkSnapshotName,
  defaultSnapshotName,
  describeSnapshots,
  isOf,
  notesOf,
  readNotes,
  writeNotes,
  type SnapshotNote,
} from './snapshot-notes.ts';
import { lendRoom } from './disk-bound.ts';
import { boundsOf } from './machine-config.ts';
import { requireRoom, type DiskLayers } from './disk-quota.ts';
import { requireSpace } from './snapshot-space.ts';
import type { SnapshotCreateOptions, SnapshotInfo, SnapshotsApi } from './snapshot-types.ts';
import type { VmInside } from './vm-inside.ts';
import type { WaitOptions } from './wait-options.ts';

/** Default of all calls: gigabytes of memory on a slow disk. */
const TIMEOUT_MS = 120_000;
/** For a channel to the guest where other processes have them all. */
const RESERVE_MS = 10_000;
/** States in which there is a QEMU to talk to. */
const ALIVE = ['running', 'paused'] as const;

/** {@link SnapshotsApi} of one VM. */
export class Snapshots implements SnapshotsApi {
  readonly #vm: VmInside;

  constructor(vm: VmInside) {
    this.#vm = vm;
  }

  async create(
    name = defaultSnapshotName(new Date()),
    { description, ...given }: SnapshotCreateOptions = {},
  ): Promise<SnapshotInfo> {
    checkSnapshotName(name);
    if (description !== undefined) checkDescription(description);
    const o = withDefault(given);
    const startedAt = performance.now();
    return this.#vm.exclusively(ALIVE, o, async (live) => {
      live.watch.fault.throwIfAborted();
      requireWhole(this.#vm);
      requireUnparked(this.#vm); // else what runs in it would stand still after each restore
      const wasRunning = this.#vm.state === 'running';
      const { id } = this.#vm;
      step('snapshot.create', 'check', id);
      const info = await live.qmp.use(async (client) => {
        const before = await querySnapshots(client, o);
        if (before.some((one) => one.name === name)) throw this.#taken(name);
        const { dir } = this.#vm.files;
        const disk = this.#disk();
        await requireSpace(dir, live.process.identity.pid);
        await requireRoom(disk, live.process.identity.pid);
        if (wasRunning) await prepareToBeSaved({ vmId: id, live, client }, o);
        const busyChannels = await connectedChannels(client, live.run.ports, o);
        step('snapshot.create', 'save', id);
        await saveSnapshot(client, { tag: name, dir, disk }, o);
        const all = await this.#read(client, o);
        const saved = all.find((one) => one.name === name);
        if (saved === undefined) throw this.#unknown(name);
        const { createdAt } = saved;
        step('snapshot.create', 'note', id);
        await this.#note(client, all, { name, createdAt, description, busyChannels }, o);
        return { ...saved, description };
      }, o);
      step('snapshot.create', 'clock', id);
      if (wasRunning) await setClock(live);
      const durationMs = since(startedAt);
      const { sizeBytes } = info;
      events.emit('snapshot.created', { vmId: this.#vm.id, name, sizeBytes, durationMs });
      return info;
    });
  }

  async restore(name: string, given: WaitOptions = {}): Promise<void> {
    const o = withDefault(given);
    const startedAt = performance.now();
    await this.#vm.exclusively(ALIVE, o, async (live) => {
      live.watch.fault.throwIfAborted();
      const wasRunning = this.#vm.state === 'running';
      step('snapshot.restore', 'reserve', this.#vm.id);
      // Before anything is touched: who could not talk to the guest afterwards had better not begin.
      const timeoutMs = Math.min(o.timeoutMs, RESERVE_MS);
      await using _channel = await live.link.reserve({ ...o, timeoutMs });
      await live.qmp.use((client) => this.#load(live, client, name, o), o);
      const loadMs = since(startedAt);
      if (wasRunning) await wakeRestored(this.#vm, live, 'snapshot.restore', given);
      const durationMs = since(startedAt);
      events.emit('snapshot.restored', { vmId: this.#vm.id, name, loadMs, durationMs });
    });
  }

  async list(given: WaitOptions = {}): Promise<SnapshotInfo[]> {
    const o = withDefault(given);
    const live = await this.#vm.takeUp();
    return live.qmp.use((client) => this.#read(client, o), o);
  }

  async delete(name: string, given: WaitOptions = {}): Promise<void> {
    const o = withDefault(given);
    const startedAt = performance.now();
    await this.#vm.exclusively(ALIVE, o, async (live) => {
      await live.qmp.use(async (client) => {
        const before = await this.#read(client, o);
        const found = before.find((one) => one.name === name);
        if (found === undefined) throw this.#unknown(name);
        await lendRoom(client, this.#disk(), o);
        await deleteSnapshot(client, name, o);
        const { snapshotsPath } = this.#vm.files;
        const rest = before.filter((one) => one !== found);
        // On a full disk, say: a note that stays belongs to no snapshot, and does no harm.
        const notes = await readNotes(snapshotsPath);
        await writeNotes(snapshotsPath, notesOf(rest, notes)).catch(() => undefined);
      }, o);
      const durationMs = since(startedAt);
      events.emit('snapshot.deleted', { vmId: this.#vm.id, name, durationMs });
    });
  }

  /**
   * Loads a snapshot; the vCPUs stand still afterwards. Each step is written down before it is made, so
   * that others know what they find if this process dies.
   */
  async #load(live: LiveVm, client: QmpClient, name: string, o: WaitOptions): Promise<void> {
    const known = (await this.#read(client, o)).find((one) => one.name === name);
    if (known === undefined) throw this.#unknown(name);
    const notes = await readNotes(this.#vm.files.snapshotsPath);
    await lendRoom(client, this.#disk(), o);
    const { run, id } = this.#vm;
    step('snapshot.restore', 'stop', id);
    // A second load before a vCPU ran makes a QEMU with vhost-vsock abort (vhost-vsock-common.c). What
    // the guest does in that moment is undone by the load.
    if (run?.restoring !== undefined || run?.parked === true) await client.execute('cont', {}, o);
    await client.execute('stop', {}, o);
    live.restores = (run?.restores ?? 0) + 1;
    await this.#vm.note('paused', { restoring: 'loading', restores: live.restores });
    await live.link.restored(notes.find(isOf(known))?.busyChannels);
    step('snapshot.restore', 'load', id);
    await loadSnapshot(client, name, o);
    await this.#vm.note('paused', { restoring: 'loaded' });
  }

  #disk(): DiskLayers {
    const { id, files, record } = this.#vm;
    return boundsOf(id, files, record.config); // its quota may have been raised
  }

  async #read(client: QmpClient, o: WaitOptions): Promise<SnapshotInfo[]> {
    const notes = await readNotes(this.#vm.files.snapshotsPath);
    return describeSnapshots(await querySnapshots(client, o), notes);
  }

  /** Writes down what is known of a new snapshot; one that cannot have its description is taken back. */
  async #note(
    client: QmpClient,
    snapshots: readonly SnapshotInfo[],
    note: SnapshotNote,
    o: WaitOptions,
  ): Promise<void> {
    const { snapshotsPath } = this.#vm.files;
    try {
      const others = notesOf(snapshots, await readNotes(snapshotsPath));
      await writeNotes(snapshotsPath, [...others, note]);
    } catch (error) {
      if (note.description === undefined) return; // its restores take a little longer, that is all
      await deleteSnapshot(client, note.name, o).catch(() => undefined);
      throw error;
    }
  }

  #taken(name: string): ConfigError {
    const { id } = this.#vm;
    return new ConfigError(`VM ${id} has a snapshot ${name} already`, {
      vmId: id,
      field: 'snapshot.name',
      value: name,
      hint: `Choose another name, or delete it first: \`qmp-agent snapshot delete ${id} ${name}\`.`,
    });
  }

  #unknown(name: string): NotFoundError {
    const { id } = this.#vm;
    return new NotFoundError(`VM ${id} has no snapshot ${JSON.stringify(name)}`, {
      vmId: id,
      kind: 'snapshot',
      query: name,
      hint: `See what there is with \`qmp-agent snapshot list ${id}\`.`,
    });
  }
}

function withDefault(o: WaitOptions): WaitOptions & { timeoutMs: number } {
  return { ...o, timeoutMs: o.timeoutMs ?? TIMEOUT_MS };
}

function since(startedAt: number): number {
  return Math.round(performance.now() - startedAt);
}
