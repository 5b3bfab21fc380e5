/** The way to a guest's agent: a free channel, a session on it, and another when that is lost. */
import { setTimeout as delay } from 'node:timers/promises';
import { VSOCK_PORT } from '../../guest-agent/protocol.ts';
import { GuestDisconnectedError, TimeoutError } from '../errors.ts';
import { GuestSession, type ChannelTarget, type ConnectOptions } from '../guest/index.ts';
import { withDeadline } from '../guest/request.ts';
import { eitherSignal } from './abort.ts';
import type { WaitOptions } from './api.ts';
import { FileLock } from './file-lock.ts';
import type { VmPaths } from './vm-paths.ts';

/** Default wait for a session with a guest that is up. */
const DEFAULT_TIMEOUT_MS = 30_000;
/** Between two rounds over channels that are all taken. */
const CHANNEL_RETRY_MS = 50;

/** Where the agent of a VM is reached. */
export type LinkTarget =
  | { readonly kind: 'vsock'; readonly cid: number }
  | {
      readonly kind: 'virtio-serial';
      readonly ports: number;
      /** The guest is a copy of one with which somebody talked through these: others come first. */
      readonly busy?: readonly number[] | undefined;
    };

/** How a session is opened. */
export interface OpenOptions extends WaitOptions {
  /** The guest has just been started. Default false. */
  booting?: boolean | undefined;
  /** Where the session is opened by this call: see {@link ConnectOptions.renew}. */
  renew?: ConnectOptions['renew'];
}

/** Channels with a session that leads nowhere; undefined where nobody knows, and any may be one. */
interface Stale {
  readonly channels: readonly number[] | undefined;
}

/** A channel, and the lock by which it is ours; vsock needs none. */
interface Lease {
  readonly target: ChannelTarget;
  readonly index?: number;
  readonly lock?: FileLock;
}

/** One attempt to open a session. Where it is cut off, another follows. */
interface Attempt {
  readonly cut: AbortController;
  readonly ended: Promise<unknown>;
}

/** Opens sessions with one VM's agent, one at a time, shared by all who ask. */
export class GuestLink {
  readonly #vmId: string;
  readonly #paths: VmPaths;
  readonly #target: LinkTarget;
  readonly #isPaused: ConnectOptions['isPaused'];
  readonly #whyLost: ConnectOptions['whyLost'];
  #session: GuestSession | undefined;
  #lease: Lease | undefined;
  /** The channel is kept between two sessions. */
  #isReserved = false;
  /**
   * Until the guest is reached, where its agent may believe in sessions of before: it is a copy, or has been
   * put back to a snapshot.
   */
  #stale: Stale | undefined;
  /** What the guest must know first, whoever reaches it: see {@link wakeWith}. */
  #wake: ConnectOptions['wake'];
  /** Until the guest is reached: it was put back, its vCPUs stopped, while there was a session. */
  #wasPutBack = false;
  #opening: Promise<GuestSession> | undefined;
  /** A channel is being taken: by one at a time, else the second one's would take the place of the first. */
  #taking: Promise<void> | undefined;
  /** A session is being opened. */
  #attempt: Attempt | undefined;
  /** The guest has been put back to a snapshot, and the channel was changed. */
  #changed: Promise<void> = Promise.resolve();
  /** The last session's channel has been given back. */
  #released: Promise<void> = Promise.resolve();
  readonly #over = new AbortController();

  constructor(
    vmId: string,
    paths: VmPaths,
    target: LinkTarget,
    { isPaused, whyLost }: Pick<ConnectOptions, 'isPaused' | 'whyLost'> = {},
  ) {
    this.#vmId = vmId;
    this.#paths = paths;
    this.#target = target;
    if (target.kind === 'virtio-serial' && target.busy) this.#stale = { channels: target.busy };
    this.#isPaused = isPaused;
    this.#whyLost = whyLost;
  }

  /** The session that is open now. */
  get current(): GuestSession | undefined {
    return this.#session;
  }

  /** The virtio-serial channel of the session that is open now; undefined where there is none, or on vsock. */
  get channel(): number | undefined {
    return this.#session === undefined ? undefined : this.#lease?.index;
  }

  /** Whether somebody talks to the guest, or is about to. */
  get isWanted(): boolean {
    return this.#session !== undefined || this.#opening !== undefined;
  }

  /**
   * The session, opened where there is none. Who comes second waits for the one that is opening, within
   * his own bounds; where the first gives up, he goes on by himself.
   * @throws TimeoutError no free channel, or no answer; what {@link GuestSession.connect} throws
   */
  async open(o: OpenOptions = {}): Promise<GuestSession> {
    const { signal, timeoutMs = DEFAULT_TIMEOUT_MS } = o;
    const deadline = performance.now() + timeoutMs;
    for (;;) {
      if (this.#session !== undefined) return this.#session;
      if (this.#opening === undefined) {
        const leftMs = Math.max(1, deadline - performance.now());
        this.#opening = this.#connect({ ...o, timeoutMs: leftMs }).finally(() => {
          this.#opening = undefined;
        });
        return await this.#opening;
      }
      const wait = { operation: `guest agent of VM ${this.#vmId}`, vmId: this.#vmId, signal };
      const leftMs = Math.max(1, deadline - performance.now());
      try {
        return await withDeadline(this.#opening, { ...wait, timeoutMs: leftMs }, () => undefined);
      } catch (error) {
        const over = this.#over.signal.aborted || signal?.aborted === true;
        if (over || performance.now() > deadline - 1) throw error; // timers are exact to a millisecond
      }
    }
  }

  /**
   * Makes sure of a channel for the session that follows the present one, until it is disposed of.
   * @throws TimeoutError no free channel
   */
  async reserve({
    signal = this.#over.signal,
    timeoutMs = DEFAULT_TIMEOUT_MS,
  }: WaitOptions): Promise<AsyncDisposable> {
    const giveUp = async () => {
      this.#isReserved = false;
      if (!this.isWanted) await this.#giveBack();
    };
    this.#isReserved = true; // from here on nobody gives back what there is
    try {
      await this.#ownChannel(performance.now() + timeoutMs, timeoutMs, signal);
    } catch (error) {
      await giveUp();
      throw error;
    }
    return { [Symbol.asyncDispose]: giveUp };
  }

  /**
   * The guest is put back to a snapshot: the session that is open is none any more.
   * @param busy channels that had a session then. The agent still believes in those, and it takes a
   *   while to teach it better; on another it waits for a host
   */
  restored(busy?: readonly number[]): Promise<void> {
    const changed = this.#startOver(busy);
    this.#changed = changed.catch(() => undefined);
    return changed;
  }

  /**
   * Before the vCPUs run again: whoever opens the next session, one that has been waiting for the guest too, begins
   * it with this. See {@link ConnectOptions.wake}.
   */
  wakeWith(wake: ConnectOptions['wake']): void {
    this.#wake = wake;
  }

  async #startOver(busy: readonly number[] | undefined): Promise<void> {
    this.#stale = { channels: busy ?? this.#stale?.channels };
    this.#wasPutBack = true;
    this.#session?.restored();
    // One that was dialling would go on with what it knew of the channels.
    this.#attempt?.cut.abort();
    await this.#attempt?.ended;
    await this.#session?.closed;
    await this.#released;
    await this.#changeChannel();
  }

  /** Ends the session that is open, and gives its channel back; another may be opened. */
  async hangUp(): Promise<void> {
    await this.#opening?.catch(() => undefined);
    await this.#session?.close();
    await this.#released;
  }

  /** Ends the session and gives the channel back, for good. Idempotent. */
  async close(): Promise<void> {
    this.#over.abort(
      new GuestDisconnectedError(`the connection to VM ${this.#vmId} was closed`, {
        vmId: this.#vmId,
        hint: 'Take the VM up again: `Vm.connect(id)`.',
      }),
    );
    await this.#opening?.catch(() => undefined);
    await this.#session?.close();
    await this.#released;
  }

  async #connect(o: OpenOptions): Promise<GuestSession> {
    const timeoutMs = o.timeoutMs ?? DEFAULT_TIMEOUT_MS;
    const deadline = performance.now() + timeoutMs;
    const signal = eitherSignal(this.#over.signal, o.signal);
    for (;;) {
      await this.#changed;
      const cut = new AbortController();
      const opening = this.#connectOnce(
        { ...o, signal: AbortSignal.any([signal, cut.signal]) },
        { deadline, timeoutMs },
      );
      const attempt = { cut, ended: opening.catch(() => undefined) };
      this.#attempt = attempt;
      try {
        return await opening;
      } catch (error) {
        if (!cut.signal.aborted || signal.aborted) throw error;
      } finally {
        if (this.#attempt === attempt) this.#attempt = undefined;
      }
    }
  }

  async #connectOnce(
    o: OpenOptions & { signal: AbortSignal },
    { deadline, timeoutMs }: { deadline: number; timeoutMs: number },
  ): Promise<GuestSession> {
    const lease = await this.#ownChannel(deadline, timeoutMs, o.signal);
    const stale = this.#stale;
    try {
      const session = await GuestSession.connect(lease.target, {
        vmId: this.#vmId,
        timeoutMs: Math.max(1, deadline - performance.now()),
        signal: o.signal,
        booting: o.booting,
        renew: o.renew,
        wake: () => this.#wake?.(),
        restored: isStale(stale, lease.index),
        hangUpFirst: this.#wasPutBack,
        isPaused: this.#isPaused,
        whyLost: this.#whyLost,
      });
      this.#session = session;
      this.#wake = undefined;
      if (this.#stale === stale) {
        this.#stale = undefined;
        this.#wasPutBack = false;
      } // else it was put back meanwhile
      this.#released = session.closed.then(async () => {
        this.#session = undefined;
        if (!this.#isReserved) await this.#giveBack();
      });
      return session;
    } catch (error) {
      if (!this.#isReserved) await this.#giveBack();
      throw error;
    }
  }

  /** From a stale channel to one that is none, where there is any. */
  async #changeChannel(): Promise<void> {
    const old = this.#lease;
    if (old === undefined || this.#target.kind === 'vsock' || !isStale(this.#stale, old.index))
      return;
    for (let index = 0; index < this.#target.ports; index += 1) {
      if (isStale(this.#stale, index)) continue;
      const lease = await this.#tryChannel(index);
      if (lease === undefined) continue;
      this.#lease = lease;
      await old.lock?.release();
      return;
    }
  }

  async #tryChannel(index: number): Promise<Lease | undefined> {
    const lock = await FileLock.tryAcquire(this.#paths.channelLockPath(index));
    if (lock === undefined) return undefined;
    return { target: { kind: 'unix', path: this.#paths.channelSocketPath(index) }, index, lock };
  }

  async #giveBack(): Promise<void> {
    const lease = this.#lease;
    this.#lease = undefined;
    await lease?.lock?.release();
  }

  /** The channel that is ours; taken where there is none. */
  async #ownChannel(deadline: number, timeoutMs: number, signal: AbortSignal): Promise<Lease> {
    for (;;) {
      if (this.#lease !== undefined) return this.#lease;
      if (this.#taking === undefined) {
        this.#taking = this.#takeChannel(deadline, timeoutMs, signal)
          .then((lease) => void (this.#lease = lease))
          .finally(() => (this.#taking = undefined));
        await this.#taking;
        continue;
      }
      const pause = delay(CHANNEL_RETRY_MS, undefined, { signal });
      await Promise.race([this.#taking, pause]).catch(() => undefined);
      signal.throwIfAborted();
      if (this.#lease === undefined && performance.now() >= deadline)
        throw this.#noChannel(timeoutMs);
    }
  }

  #noChannel(timeoutMs: number): TimeoutError {
    const ports = this.#target.kind === 'vsock' ? 0 : this.#target.ports;
    return new TimeoutError(`a free channel of VM ${this.#vmId}`, timeoutMs, {
      vmId: this.#vmId,
      hint: `All ${ports} virtio-serial channels are in use by other processes: wait for one to end, or use a host with vhost-vsock.`,
    });
  }

  async #takeChannel(deadline: number, timeoutMs: number, signal: AbortSignal): Promise<Lease> {
    if (this.#target.kind === 'vsock') {
      return { target: { kind: 'vsock', cid: this.#target.cid, port: VSOCK_PORT } };
    }
    const { busy } = this.#target;
    const order = channelOrder({
      ...this.#target,
      busy: this.#stale ? this.#stale.channels : busy,
    });
    for (;;) {
      signal.throwIfAborted();
      for (const index of order) {
        const lease = await this.#tryChannel(index);
        if (lease !== undefined) return lease;
      }
      if (performance.now() >= deadline) throw this.#noChannel(timeoutMs);
      await delay(CHANNEL_RETRY_MS, undefined, { signal }).catch(() => undefined);
    }
  }
}

/** Whether a channel's session may be one of before; vsock has no number for it. */
function isStale(stale: Stale | undefined, index: number | undefined): boolean {
  if (stale === undefined) return false;
  return index === undefined || stale.channels?.includes(index) !== false;
}

/** All channels, those first on which nobody was. Pure. */
export function channelOrder(o: { ports: number; busy?: readonly number[] | undefined }): number[] {
  const isBusy = (index: number) => o.busy?.includes(index) === true;
  const all = Array.from({ length: o.ports }, (_, index) => index);
  return [...all.filter((index) => !isBusy(index)), ...all.filter(isBusy)];
}
