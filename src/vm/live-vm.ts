/** One life of a VM's QEMU, in the hands of this process: launched by it, or taken up. */
import { rm } from 'node:fs/promises';
import { connect } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import type { QmpClient } from '../../qmp/index.ts';
import {
  HostError,
  LaunchError,
  QmpConnectError,
  TimeoutError,
  VmDiedError,
  type VmRestoredError,
} from '../errors.ts';
import { events } from '../events.ts';
import { restoredError } from '../guest/index.ts';
import { isThere } from '../host-files.ts';
import { eitherSignal } from './abort.ts';
import { chooseAccel, isKvmFailure, kvmError, probeKvm, warnAboutTcg } from './accel.ts';
import type { Accel } from './api.ts';
import { buildArgv, chardevOfChannel } from './argv.ts';
import { prepareBound } from './disk-bound.ts';
import { GuestLink } from './guest-link.ts';
import { hostTscKhz } from './host-tsc.ts';
import { newCid } from './ids.ts';
import { adoptQemu, findQemu, giveUpIoUring, launchQemu, type QemuProcess } from './launcher.ts';
import { logsOf } from './logs.ts';
import {
  boundsOf,
  machineConfig,
  MAX_PORTS,
  portsOf,
  type MachineContext,
} from './machine-config.ts';
import { isAlive, ownIdentity } from './process-identity.ts';
import { connectToNewQemu, QmpAccess } from './qmp-access.ts';
import { readRecord, type VmConfig, type VmRecord, type VmRun } from './record.ts';
import { makeDir } from './state-dir.ts';
import { loadState } from './template/state.ts';
import type { VmPaths } from './vm-paths.ts';
import { lastLine, VmWatch, type WantedEnd } from './vm-watch.ts';

/** CIDs tried before we give up: two random ones hardly ever collide. */
const MAX_LAUNCHES = 5;
/** QEMU ends within this time once its QMP socket closed during the start. */
const DEATH_MS = 2_000;
/** Without a held QMP connection: how often QEMU is asked whether the host's disk is full. */
const STATUS_POLL_MS = 2_000;

/** `spawned`: QEMU exists, and nobody has written so yet; `load`: what it goes on from is to be loaded. */
export type LaunchStep = 'spawned' | 'load';

/** What a launch needs. */
export interface LaunchContext extends MachineContext {
  /** What goes on from frozen files stands still when it is loaded. Default false: it runs. */
  readonly hold?: boolean | undefined;
  /** Told of the steps of a launch. */
  readonly onStep?: ((step: LaunchStep) => void) | undefined;
  /** Told the run as soon as the process exists, so that it can be written down before anything else. */
  readonly onSpawn: (run: VmRun) => Promise<void>;
  readonly signal?: AbortSignal | undefined;
}

/** A QEMU that runs, with all by which this process deals with it. */
export class LiveVm {
  readonly process: QemuProcess;
  readonly run: VmRun;
  readonly watch: VmWatch;
  readonly qmp: QmpAccess;
  readonly link: GuestLink;
  /** Told when somebody else paused or resumed the vCPUs. */
  onPaused: ((paused: boolean) => void) | undefined;
  /** Ends with our dealing with it. */
  capture: AsyncDisposable | undefined;
  /** Snapshots loaded when the session with the guest was opened; see {@link VmRun.restores}. */
  restores: number;
  readonly #id: string;
  readonly #paths: VmPaths;
  #poll: NodeJS.Timeout | undefined;
  #isPaused = false;

  private constructor(o: {
    id: string;
    paths: VmPaths;
    run: VmRun;
    process: QemuProcess;
    watch: VmWatch;
    qmp: QmpAccess;
    busyChannels?: readonly number[] | undefined;
  }) {
    this.process = o.process;
    this.run = o.run;
    this.restores = o.run.restores ?? 0;
    this.#id = o.id;
    this.#paths = o.paths;
    this.watch = o.watch;
    this.qmp = o.qmp;
    this.link = this.anotherLink(o.busyChannels);
    const { held } = o.qmp;
    if (held) void this.#followEvents(held);
    else this.#pollStatus();
  }

  /** Beside {@link link}; whoever asks closes it. */
  anotherLink(busy?: readonly number[]): GuestLink {
    const { cid, ports } = this.run;
    return new GuestLink(
      this.#id,
      this.#paths,
      cid === undefined ? { kind: 'virtio-serial', ports, busy } : { kind: 'vsock', cid },
      { isPaused: () => this.#isPaused, whyLost: () => this.#whyLost() },
    );
  }

  /**
   * Starts QEMU and waits until its machine stands; the guest boots from there.
   * @throws LaunchError, HostError (KVM, vsock, socket), or the signal's reason; QEMU is gone then
   */
  static async launch(context: LaunchContext): Promise<LiveVm> {
    const { config } = context;
    let accel = chooseAccel(config.accel, await probeKvm());
    for (let attempt = 1; ; attempt += 1) {
      const cid = config.channel === 'vsock' ? (config.cid ?? newCid()) : undefined;
      try {
        return await LiveVm.#launchOnce(context, accel, cid);
      } catch (error) {
        if (!(error instanceof LaunchError)) throw error;
        if (/io_uring/i.test(error.stderr) && attempt < MAX_LAUNCHES) {
          await giveUpIoUring(config.qemuPath);
          continue;
        }
        const next = afterFailure(error, { config, accel, cid, last: attempt === MAX_LAUNCHES });
        accel = next.accel;
      }
    }
  }

  /**
   * Takes up a QEMU that another process started; undefined where it is gone. That of a suspended VM, if
   * there is any, is what a dead process left.
   */
  static adopt(record: VmRecord, paths: VmPaths): LiveVm | undefined {
    const { run, id, state } = record;
    if (run?.qemu === undefined || !isAlive(run.qemu) || state === 'suspended') return undefined;
    const process = adoptQemu(run.qemu);
    const disk = boundsOf(id, paths, record.config);
    const notedEnd = endNotedIn(paths);
    const watch = new VmWatch({ vmId: id, process, disk, ...logsOf(paths), notedEnd });
    const qmp = new QmpAccess(id, paths, record.config.persistent ? 'locked' : 'monitor');
    return new LiveVm({ id, paths, run, process, watch, qmp });
  }

  /** Lets go of QEMU, which runs on. Idempotent. */
  async release(): Promise<void> {
    clearInterval(this.#poll);
    this.watch.release();
    await this.link.close();
    await this.qmp.close();
    await this.capture?.[Symbol.asyncDispose]();
  }

  static async #launchOnce(
    context: LaunchContext,
    accel: Accel,
    cid: number | undefined,
  ): Promise<LiveVm> {
    const { id, paths, config, signal } = context;
    const ports = cid === undefined ? portsOf(config) : 0;
    const [{ path: program, version, aio }, tscKhz] = await Promise.all([
      findQemu(config.qemuPath),
      hostTscKhz(),
    ]);
    const logs = logsOf(paths);
    const disk = boundsOf(id, paths, config);
    const [boundBytes] = await Promise.all([
      prepareBound(disk),
      logs.consoleLog.startAnew(),
      logs.qemuLog.startAnew(),
      prepareSockets(paths, id),
    ]);
    const argv = buildArgv(
      machineConfig(context, { accel, cid, ports, tscKhz, version, aio, boundBytes }),
    );
    if (events.traces('argv')) events.emit('trace.argv', { vmId: id, argv: [program, ...argv] });
    signal?.throwIfAborted();
    const startedAt = performance.now();
    const frozen = 'statePath' in context.from ? context.from : undefined;
    const process = await launchQemu({
      vmId: id,
      program,
      argv,
      logPath: paths.qemuLogPath,
      detached: config.persistent,
      inheritedPath: frozen?.statePath,
    });
    const notedEnd = config.persistent ? endNotedIn(paths) : undefined;
    const watch = new VmWatch({ vmId: id, process, disk, ...logs, notedEnd });
    let isRefused = false;
    try {
      const run: VmRun = {
        starter: ownIdentity(),
        qemu: process.identity,
        startedAt: new Date().toISOString(),
        accel,
        cid,
        ports,
        memoryPath: frozen?.memoryPath,
      };
      context.onStep?.('spawned');
      await context.onSpawn(run).catch((error: unknown) => {
        isRefused = true;
        throw error;
      });
      const guard = eitherSignal(watch.fault, signal);
      const client = await connectToNewQemu(id, paths.qmpSocketPath, guard);
      if (frozen !== undefined) {
        context.onStep?.('load');
        await loadState(client, guard, { hold: context.hold });
      }
      if (config.persistent) await client.close();
      const spawnMs = Math.round(performance.now() - startedAt);
      events.emit('vm.started', { vmId: id, pid: process.identity.pid, spawnMs });
      const qmp = new QmpAccess(id, paths, config.persistent ? 'locked' : { held: client });
      const { busyChannels } = frozen ?? {};
      return new LiveVm({ id, paths, run, process, watch, qmp, busyChannels });
    } catch (error) {
      // A closed QMP socket tells of QEMU's death a moment before the kernel does.
      const wait = signal?.aborted || isRefused ? 0 : DEATH_MS;
      const hasDied = await Promise.race([
        watch.ended.then(() => true),
        delay(wait, false, { ref: false }),
      ]);
      process.kill('SIGKILL');
      const end = await watch.ended;
      if (signal?.aborted) throw signal.reason;
      if (isRefused) throw error; // by who starts it: nothing is wrong with QEMU
      if (!(watch.fault.reason instanceof VmDiedError) || error instanceof HostError) throw error;
      // Of one that kept silent until our SIGKILL, the silence is what there is to tell.
      const isLate = error instanceof QmpConnectError || error instanceof TimeoutError;
      if (isLate && !hasDied) throw error;
      throw launchError(id, [program, ...argv], end.exit, end.error.stderr);
    }
  }

  async #followEvents(client: QmpClient): Promise<void> {
    try {
      const names = [
        'BLOCK_IO_ERROR',
        'GUEST_PANICKED',
        'STOP',
        'RESUME',
        'VSERPORT_CHANGE',
      ] as const;
      for await (const event of client.events({ names })) {
        if (event.event === 'BLOCK_IO_ERROR' && event.data.action === 'stop')
          this.watch.raiseNoSpace();
        if (event.event === 'GUEST_PANICKED') void this.watch.raisePanic();
        if (event.event === 'STOP') this.#paused(true);
        if (event.event === 'RESUME') {
          this.#paused(false);
          void this.noticeRestore().catch(() => undefined);
        }
        if (event.event === 'VSERPORT_CHANGE' && !event.data.open) {
          void this.#checkAgent(client).catch(() => undefined);
        }
      }
    } catch {
      // The connection ends with QEMU, and the watch knows of that; or by a QEMU gone mad, and the
      // next command says so.
    }
  }

  /**
   * The wire of a virtio-serial port stands whether the agent lives or not. But an agent keeps its end
   * open as long as there is a session, and the kernel closes that of one that died; QEMU knows.
   */
  async #checkAgent(client: QmpClient): Promise<void> {
    const { current: session, channel } = this.link;
    if (session === undefined || channel === undefined) return;
    const chardevs = await client.execute('query-chardev');
    const own = chardevs.find(({ label }) => label === chardevOfChannel(channel));
    if (own?.['frontend-open'] === false) session.agentGone();
  }

  /**
   * Another process may have put the guest back to a snapshot; it wrote so before the vCPUs ran. The
   * session is over then.
   */
  async noticeRestore(): Promise<void> {
    const restores = await this.#restoresNow();
    if (restores <= this.restores) return;
    this.restores = restores;
    await this.link.restored();
  }

  /**
   * Before that is noticed, the agent of before may say on our wire what belongs to its old session: nothing
   * that a guest were to be blamed for.
   */
  async #whyLost(): Promise<VmRestoredError | undefined> {
    if ((await this.#restoresNow()) <= this.restores) return undefined;
    void this.noticeRestore().catch(() => undefined); // it waits for the session's end, which waits for us
    return restoredError(this.#id);
  }

  /** Snapshots loaded by now, by whomever. */
  async #restoresNow(): Promise<number> {
    return (await readRecord(this.#paths))?.run?.restores ?? 0;
  }

  #paused(paused: boolean): void {
    this.#isPaused = paused;
    if (!paused) this.watch.renew();
    this.onPaused?.(paused);
  }

  /** Where no events come: asks, as long as somebody talks to the guest or waits for space. */
  #pollStatus(): void {
    let asking = false;
    this.#poll = setInterval(() => {
      const { fault, outOfSpace } = this.watch;
      if (asking || !(fault.aborted ? outOfSpace !== undefined : this.link.isWanted)) return;
      asking = true;
      void this.qmp
        .use(
          async (client) => {
            await this.noticeRestore();
            await this.#checkAgent(client);
            return client.execute('query-status');
          },
          { timeoutMs: STATUS_POLL_MS },
        )
        .then(({ status }) => {
          if (status === 'io-error') this.watch.raiseNoSpace();
          if (status === 'guest-panicked') void this.watch.raisePanic();
          if (status === 'running') this.#paused(false);
          if (status === 'paused' || status === 'io-error') this.#paused(true);
        })
        .catch(() => undefined)
        .finally(() => (asking = false));
    }, STATUS_POLL_MS).unref();
  }
}

/** Whether somebody had it shut down, or suspended: he wrote so before he did. */
function endNotedIn(paths: VmPaths): () => Promise<WantedEnd | undefined> {
  return async () => {
    const state = (await readRecord(paths))?.state;
    if (state === 'suspended') return state;
    return state === 'stopping' || state === 'stopped' ? 'shutdown' : undefined;
  };
}

/** Whether and how to try again. @throws the error that the user shall see */
function afterFailure(
  error: LaunchError,
  o: { config: VmConfig; accel: Accel; cid: number | undefined; last: boolean },
): { accel: Accel } {
  const { stderr, vmId } = error;
  const why = lastLine(stderr);
  if (o.accel === 'kvm' && isKvmFailure(stderr)) {
    if (o.config.accel === 'kvm') throw kvmError(why);
    warnAboutTcg(why);
    return { accel: 'tcg' };
  }
  if (o.cid !== undefined && /guest cid: Address already in use/i.test(stderr)) {
    if (o.config.cid === undefined && !o.last) return { accel: o.accel };
    throw new HostError('ERR_HOST_VSOCK', `the vsock CID ${o.cid} is taken by another VM`, {
      vmId,
      cause: error,
      hint: 'Leave the CID out, and a free one is taken; or choose another.',
    });
  }
  if (o.cid !== undefined && /vhost-vsock/i.test(stderr)) {
    throw new HostError('ERR_HOST_VSOCK', `vhost-vsock cannot be used: ${why}`, {
      vmId,
      cause: error,
      hint: 'Load the module (`modprobe vhost_vsock`), run as root or in its group, or use the virtio-serial channel.',
    });
  }
  throw error;
}

function launchError(
  vmId: string,
  argv: readonly string[],
  exit: { exitCode?: number | undefined; signal?: string | undefined },
  stderr: string,
): LaunchError {
  const why = lastLine(stderr) || (exit.signal ?? `exit code ${exit.exitCode ?? 'unknown'}`);
  return new LaunchError(`QEMU did not start: ${why}`, {
    vmId,
    ...exit,
    argv,
    stderr,
    hint: "QEMU's own words are in the error's `stderr`; `qmp-agent doctor` checks what it needs.",
  });
}

/**
 * Makes room for the sockets of a new QEMU: a file that a dead one left is removed.
 * @throws HostError ERR_HOST_SOCKET somebody listens there
 */
async function prepareSockets(paths: VmPaths, vmId: string): Promise<void> {
  await makeDir(paths.runtimeDir);
  const channels = Array.from({ length: MAX_PORTS }, (_, i) => paths.channelSocketPath(i));
  const all = [paths.qmpSocketPath, paths.monitorSocketPath, paths.consoleSocketPath, ...channels];
  await Promise.all(
    all.map(async (path) => {
      if (!(await isThere(path))) return;
      if (await isListening(path)) {
        throw new HostError('ERR_HOST_SOCKET', `another process listens on ${path}`, {
          vmId,
          hint: `Find it with \`ss -xlp src ${path}\` and end it, then start the VM again.`,
        });
      }
      await rm(path, { force: true, recursive: true });
    }),
  );
}

function isListening(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ path });
    const settle = (answer: boolean) => {
      socket.destroy();
      resolve(answer);
    };
    socket.once('connect', () => settle(true));
    socket.once('error', (error: NodeJS.ErrnoException) => settle(error.code === 'EAGAIN')); // its backlog is full
  });
}
