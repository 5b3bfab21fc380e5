/** A VM, as users have it in hand. */
import { rm } from 'node:fs/promises';
import type { Duplex } from 'node:stream';
import { resolvePaths } from '../config/paths.ts';
import { QmpAgentError, type StateError } from '../errors.ts';
import { events } from '../events.ts';
import type { GuestSession } from '../guest/index.ts';
import {
  DEFAULT_READY_TIMEOUT_MS,
  type KillOptions,
  type LogKind,
  type Reaped,
  type StateOptions,
  type StatePaths,
  type StopOptions,
  type VmCloneOptions,
  type VmCreateOptions,
  type VmForkOptions,
  type VmInfo,
  type VmInstance,
  type VmState,
  type VmStatics,
  type WaitOptions,
} from './api.ts';
import { awaitState } from './await-state.ts';
import { bootFilesOf, explainFailure, openSession } from './boot.ts';
import { DEFAULT_TAIL_BYTES } from './bounded-log.ts';
import { Commands } from './commands.ts';
import { attachConsole } from './console.ts';
import { createVm, launchAndBoot, type CreatedVm } from './create.ts';
import { diffVm, type CheckpointDiff, type VmDiffOptions } from './diff/diff.ts';
import { discardVm } from './discard.ts';
import type { FileLock } from './file-lock.ts';
import { followLog } from './follow-log.ts';
import { endBrokenFork, endBrokenForkUnlocked } from './fork/broken.ts';
import { forkVm } from './fork/fork.ts';
import { removeVm } from './gc.ts';
import { closedVm, findRecord, goneVm, wrongState } from './find-vm.ts';
import { lockMachine } from './machine-lock.ts';
import { LiveVm } from './live-vm.ts';
import { clearLogs, logOf } from './logs.ts';
import { dieWithProcess } from './process-exit.ts';
import { partsOf } from './parts.ts';
import { readRecord, writeRecord, type RecordChange, type VmRecord } from './record.ts';
import { resumeVm } from './resume.ts';
import { DEFAULT_GRACE_MS, kill, shutDown, wakeUp } from './shutdown.ts';
import { giveUpSaved, removeLeftovers } from './suspend/give-up.ts';
import { afterEnd } from './after-end.ts';
import { suspendVm } from './suspend/suspend.ts';
import { loadSuspended } from './suspend/wake.ts';
import { cloneVm } from './template/clone.ts';
import { standBy } from './template/stand-by.ts';
import { infoOf, isDown, isHalfClone, observeState, seenBy } from './vm-info.ts';
import type { VmInside } from './vm-inside.ts';
import { collectIn, inspectNamed, listVms } from './vm-lists.ts';
import { vmPaths, type VmPaths } from './vm-paths.ts';
import type { VmEnd } from './vm-watch.ts';

/** A kill that cannot get the lock writes nothing: the record is read with an eye on the process. */
const KILL_LOCK_MS = 1_000;

/**
 * A VM. {@link Vm.create} makes one, {@link Vm.connect} takes one up; both give what has to be
 * closed, best by `await using`.
 */
export class Vm implements VmInstance {
  readonly id: string;
  readonly commands = new Commands(this);
  readonly snapshots: VmInstance['snapshots'];
  readonly network: VmInstance['network'];
  readonly #paths: StatePaths;
  readonly #files: VmPaths;
  readonly #owned: boolean;
  #record: VmRecord;
  #live: LiveVm | undefined;
  #state: VmState;
  #closing: Promise<void> | undefined;
  /** States in between are nobody's business. */
  #isChanging = false;
  #cancelExitHook: (() => void) | undefined;

  /** {@inheritDoc VmStatics.create} */
  static async create(options: VmCreateOptions = {}): Promise<Vm> {
    return Vm.#of(await createVm(options));
  }

  /** {@inheritDoc VmStatics.fromTemplate} */
  static async fromTemplate(template: string, options: VmCloneOptions = {}): Promise<Vm> {
    return standBy(Vm.#of(await cloneVm(template, options)), options);
  }

  /** {@inheritDoc VmStatics.connect} */
  static async connect(idOrName: string, o: StateOptions & WaitOptions = {}): Promise<Vm> {
    const paths = o.paths ?? resolvePaths();
    const record = await findRecord(idOrName, paths);
    o.signal?.throwIfAborted();
    return new Vm(paths, record, LiveVm.adopt(record, vmPaths(paths, record.id)), false);
  }

  /** {@inheritDoc VmStatics.list} */
  static list(o: StateOptions = {}): Promise<VmInfo[]> {
    return listVms(o);
  }

  /** {@inheritDoc VmStatics.inspect} */
  static inspect(idOrName: string, o: StateOptions = {}): Promise<VmInfo> {
    return inspectNamed(idOrName, o);
  }

  /** {@inheritDoc VmStatics.kill} */
  static async kill(idOrName: string, o: StateOptions & KillOptions = {}): Promise<boolean> {
    const paths = o.paths ?? resolvePaths();
    const record = await findRecord(idOrName, paths);
    const ran = !isDown(observeState(record).state);
    await using vm = await Vm.connect(record.id, o);
    await vm.kill(o);
    return ran;
  }

  /** {@inheritDoc VmStatics.gc} */
  static gc(o: StateOptions & WaitOptions = {}): Promise<Reaped[]> {
    return collectIn(o);
  }

  static #of({ paths, record, live }: CreatedVm): Vm {
    return new Vm(paths, record, live, !record.config.persistent);
  }

  private constructor(
    paths: StatePaths,
    record: VmRecord,
    live: LiveVm | undefined,
    owned: boolean,
  ) {
    this.id = record.id;
    this.#paths = paths;
    this.#files = vmPaths(paths, record.id);
    this.#record = record;
    this.#owned = owned;
    ({ snapshots: this.snapshots, network: this.network } = partsOf(this.inside));
    this.#state = observeState(record).state;
    if (live !== undefined) this.#attach(live);
    const { runtimeDir, dir } = this.#files;
    if (owned) this.#cancelExitHook = dieWithProcess(live?.process, [runtimeDir, dir]);
  }

  get name(): string | undefined {
    return this.#record.name;
  }

  get state(): VmState {
    return this.#state;
  }

  get fault(): AbortSignal {
    return this.#live?.watch.fault ?? AbortSignal.abort(this.#stateError(['running']));
  }

  get monitorPath(): string {
    return this.#files.monitorSocketPath;
  }

  async guest(o: WaitOptions = {}): Promise<GuestSession> {
    // Who owns the VM is told by QEMU; others must look, lest they talk to a guest of before.
    if (!this.#owned) await this.#live?.noticeRestore().catch(() => undefined);
    const open = this.#live?.link.current;
    if (open !== undefined && this.#state === 'running' && !this.fault.aborted) return open;
    const live = await this.#takeUp();
    live.watch.fault.throwIfAborted();
    if (this.#record.run?.forking === true) await endBrokenForkUnlocked(this.inside, o);
    if (this.#state === 'paused' || isHalfClone(this.#record)) throw this.#stateError(['running']);
    return openSession(live, o);
  }

  explain(error: unknown): Promise<unknown> {
    return this.#live === undefined ? Promise.resolve(error) : explainFailure(this.#live, error);
  }

  async info(): Promise<VmInfo> {
    const record = this.#state === 'removed' ? undefined : await readRecord(this.#files);
    if (record === undefined) {
      this.#setState('removed');
      return { ...infoOf(this.#paths, this.#record), state: 'removed', pid: undefined };
    }
    this.#record = record;
    const info = seenBy(this.#live?.watch, infoOf(this.#paths, record));
    this.#setState(info.state);
    return info;
  }

  waitForState(wanted: VmState | readonly VmState[], o: WaitOptions = {}): Promise<VmState> {
    return awaitState(this.id, wanted, async () => (await this.info()).state, o);
  }

  async start(o: WaitOptions & { discard?: boolean } = {}): Promise<void> {
    const deadline = performance.now() + (o.timeoutMs ?? DEFAULT_READY_TIMEOUT_MS);
    await using _lock = await this.#lock(o);
    await this.#freshRecord();
    if (this.#state === 'suspended' && o.discard === true) await giveUpSaved(this.inside);
    const record = this.#record;
    if (!record.config.persistent || this.#state !== 'stopped') throw this.#stateError(['stopped']);
    await this.#detach();
    await removeLeftovers(this.inside);
    const from = await bootFilesOf(this.#paths, record.config, o.signal);
    this.#setState('starting');
    try {
      const paths = this.#paths;
      const started = await launchAndBoot({ paths, record, from, deadline, signal: o.signal });
      this.#record = started.record;
      this.#attach(started.live);
      this.#setState('running');
    } catch (error) {
      await this.#write({ state: 'stopped', detail: (error as Error).message }).catch(
        () => undefined,
      );
      throw error;
    }
  }

  async stop(o: StopOptions = {}): Promise<void> {
    await using _lock = await this.#lock(o);
    const record = await this.#freshRecord();
    if (this.#state === 'stopped') return;
    if (this.#state === 'suspended') throw this.#stateError(['running', 'paused']);
    const live = await this.#takeUp();
    // A fork that broke off may have left the vCPUs standing, too.
    const awake = await wakeUp(live, this.#state === 'paused' || record.run?.forking === true);
    // On a full disk nothing can be written down, but a VM can be stopped.
    await this.#write({ state: 'stopping' }).catch(() => undefined);
    const { machine } = record.config;
    const graceMs = o.graceMs ?? DEFAULT_GRACE_MS;
    await shutDown(live, { graceMs, machine, awake, signal: o.signal });
    await this.#down();
  }

  async kill(o: KillOptions = {}): Promise<void> {
    o.signal?.throwIfAborted();
    await this.#freshRecord();
    if (this.#state === 'stopped') return;
    if (this.#state === 'suspended') return this.#giveUp(o);
    const live = await this.#takeUp();
    await kill(live);
    // A start under way holds the lock and cleans up by itself; then there is nothing to write.
    if (await this.#wasSuspended(live)) await this.#giveUp(o);
  }

  /** Writes a kill down, unless somebody was quicker: started the VM anew, or suspended it. */
  async #wasSuspended({ run }: LiveVm): Promise<boolean> {
    await using lock = await this.#lock({ timeoutMs: KILL_LOCK_MS }).catch(() => undefined);
    if (lock === undefined) return false;
    const now = await readRecord(this.#files);
    if (now?.state === 'suspended') return true;
    if (now === undefined || now.run?.qemu?.pid === run.qemu?.pid) await this.#down();
    return false;
  }

  async remove(o: WaitOptions & { force?: boolean } = {}): Promise<void> {
    if (o.force === true) await this.kill({ ...o, discard: true });
    await using _lock = await this.#lock(o);
    await this.#freshRecord();
    if (!isDown(this.#state)) throw this.#stateError(['stopped']);
    await this.#detach();
    await removeVm(this.#paths, this.id, this.#record);
    this.#setState('removed');
    events.emit('vm.removed', { vmId: this.id, leftovers: 0 });
  }

  async pause(o: WaitOptions = {}): Promise<void> {
    await this.#exclusively(['running'], o, async (live) => {
      await live.qmp.use((client) => client.execute('stop', {}, o), o);
      await this.#write({ state: 'paused' });
    });
  }

  async resume(o: WaitOptions = {}): Promise<void> {
    await using _lock = await this.#lock(o);
    await this.#freshRecord();
    const inside = this.inside;
    if (this.#state === 'suspended') {
      await this.#detach();
      this.#attach(await loadSuspended(inside, o));
    }
    await this.#changing((live) => resumeVm(inside, live, o));
  }

  suspend(o: WaitOptions = {}): Promise<void> {
    return suspendVm(this.inside, o);
  }

  async fork(o: VmForkOptions = {}): Promise<Vm[]> {
    return (await forkVm(this.inside, this.#paths, o)).map((child) => Vm.#of(child));
  }

  async logs(o: { kind?: LogKind; tailBytes?: number } = {}): Promise<string> {
    return logOf(this.#files, o.kind).tail(o.tailBytes ?? DEFAULT_TAIL_BYTES);
  }

  clearLogs(): Promise<void> {
    return clearLogs(this.#files);
  }

  followLogs(o: { kind?: LogKind; signal?: AbortSignal } = {}): AsyncIterable<Buffer> {
    const ended = this.#live?.watch.ended ?? Promise.resolve();
    return followLog(logOf(this.#files, o.kind), ended, o.signal);
  }

  async console(o: WaitOptions = {}): Promise<Duplex> {
    await this.#freshRecord();
    if (isDown(this.#state)) throw this.#stateError(['running', 'paused', 'starting']);
    return attachConsole(this.id, this.#files, o);
  }

  diff(o: VmDiffOptions = {}): Promise<CheckpointDiff> {
    return diffVm(this.inside, this.#paths, o, (id) => Vm.connect(id, { paths: this.#paths }));
  }

  close(): Promise<void> {
    this.#closing ??= this.#owned ? this.#discard() : this.#detach();
    return this.#closing;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  async #discard(): Promise<void> {
    const leftovers = await discardVm(this.#record, this.#live, this.#paths);
    this.#cancelExitHook?.();
    this.#setState('removed');
    events.emit('vm.removed', { vmId: this.id, leftovers });
  }

  /** Deals with this QEMU from now on. */
  #attach(live: LiveVm): void {
    this.#live = live;
    live.onPaused = (paused) => {
      if (!this.#isChanging && (this.#state === 'running' || this.#state === 'paused'))
        this.#setState(paused ? 'paused' : 'running');
    };
    void live.watch.ended.then((end) => {
      this.#onEnd(live, end);
    });
  }

  #onEnd(live: LiveVm, end: VmEnd): void {
    events.emit('vm.stopped', { vmId: this.id, reason: end.reason });
    if (this.#live !== live || this.#state === 'removed') return;
    this.#setState(end.reason === 'suspended' ? 'suspended' : 'stopped');
  }

  /** Lets go of QEMU, which runs on where it does. */
  async #detach(): Promise<void> {
    const live = this.#live;
    this.#live = undefined;
    await live?.release();
  }

  /** The QEMU that runs now, which another process may have started. @throws StateError none does */
  async #takeUp(): Promise<LiveVm> {
    const record = await this.#freshRecord();
    const live = this.#live;
    if (this.#closing !== undefined) throw closedVm(this.id);
    const isSame = live?.run.qemu?.pid === record.run?.qemu?.pid && this.#state !== 'suspended';
    if (live !== undefined && (isSame || this.#owned)) return live;
    await this.#detach();
    const adopted = LiveVm.adopt(record, this.#files);
    if (adopted === undefined) throw this.#stateError(['running']);
    this.#attach(adopted);
    return adopted;
  }

  /** @throws NotFoundError it was removed */
  async #freshRecord(): Promise<VmRecord> {
    const { state } = await this.info();
    if (state === 'removed') throw goneVm(this.id);
    return this.#record;
  }

  #lock(o: WaitOptions): Promise<FileLock> {
    return lockMachine(this.id, this.#files.lockPath, o);
  }

  /** What {@link VmInside} says; the lock is held. */
  async #write(change: RecordChange, durable = false): Promise<void> {
    this.#record = { ...this.#record, detail: undefined, suspended: undefined, ...change };
    this.#setState(change.state);
    await writeRecord(this.#files, this.#record, { durable });
  }

  /** QEMU is gone: its sockets go too. */
  async #letGo(): Promise<void> {
    await this.#detach();
    await rm(this.#files.runtimeDir, { recursive: true, force: true });
  }

  async #giveUp(o: KillOptions): Promise<void> {
    await using _lock = await this.#lock(o);
    await this.#freshRecord();
    if (this.#state !== 'suspended' || o.discard !== true)
      throw this.#stateError(['running', 'paused']);
    await giveUpSaved(this.inside);
  }

  /** As {@link #letGo}, after an end. */
  async #down(): Promise<void> {
    await this.#letGo();
    await afterEnd(this.inside);
    // The owner of an ephemeral VM may have removed it by now.
    if ((await readRecord(this.#files)) !== undefined)
      await this.#write({ state: 'stopped' }).catch(() => undefined);
    else this.#setState('removed');
  }

  /** What {@link VmInside} says. */
  async #exclusively<T>(
    states: readonly VmState[],
    o: WaitOptions,
    work: (live: LiveVm) => Promise<T>,
  ): Promise<T> {
    await using _lock = await this.#lock(o);
    await this.#freshRecord();
    if (this.#record.run?.forking === true)
      await endBrokenFork(this.inside, await this.#takeUp(), o);
    if (!states.includes(this.#state)) throw this.#stateError(states);
    return await this.#changing(work);
  }

  /** Does something to the QEMU that runs now; the lock is held. */
  async #changing<T>(work: (live: LiveVm) => Promise<T>): Promise<T> {
    const live = await this.#takeUp();
    this.#isChanging = true;
    try {
      return await work(live);
    } catch (error) {
      if (error instanceof QmpAgentError) error.vmId ??= this.id;
      throw await explainFailure(live, error);
    } finally {
      this.#isChanging = false;
    }
  }

  /**
   * For what is done with a VM from outside this class.
   * @internal
   */
  get inside(): VmInside {
    const state = () => this.#state;
    const record = () => this.#record;
    return {
      id: this.id,
      files: this.#files,
      config: this.#record.config,
      get state() {
        return state();
      },
      get record() {
        return record();
      },
      get run() {
        return record().run;
      },
      takeUp: () => this.#takeUp(),
      exclusively: (states, o, work) => this.#exclusively(states, o, work),
      note: (recorded, change) => {
        const { run } = this.#record;
        return this.#write({ state: recorded, run: run && { ...run, ...change } });
      },
      write: (change) => this.#write(change, true),
      letGo: () => this.#letGo(),
    };
  }

  #setState(to: VmState): void {
    const from = this.#state;
    if (from === to) return;
    this.#state = to;
    events.emit('vm.state', { vmId: this.id, from, to });
  }

  #stateError(required: readonly VmState[]): StateError {
    return wrongState(this.id, required, this.#state);
  }
}

// Holds the class to its contract.
const _statics: VmStatics = Vm;
