/**
 * A capture that goes on with the VM's next tap, into the same file or stream: one head, and the packets of all its lives.
 * Between two of them there is nothing to be captured, and it waits.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { events } from '../../events.ts';
import type { CaptureEnd, CaptureResult, CaptureStats, NetworkCapture } from './capture-options.ts';
import { openTarget, type CaptureTarget } from './capture-target.ts';
import { isOwnAndUp, PacketCapture, type PacketCaptureOptions } from './packet-capture.ts';

/** A guest boots in many times that, and QEMU starts when the tap is there: its first packets are not missed. */
const POLL_MS = 50;
/** How often it is asked whether the VM still has the tap: one that is lent outlives its VM. */
const LOOK_MS = 500;
/** Of starts in a row that fail where the tap is there and up: then it is no tap that comes and goes. */
const MAX_FAILURES = 5;

/** Which tap a VM has. */
export interface TapNow {
  /** Undefined: none. */
  readonly tap?: string | undefined;
  /** Of a tap that is lent: which loan it is. The next one may be of the same tap, for any VM. */
  readonly loan?: string | undefined;
}

/** What {@link FollowedCapture.start} is given. */
export interface FollowOptions extends PacketCaptureOptions, TapNow {
  readonly tap: string;
  /** Which tap the VM has now, and none that it had; undefined: there is no such VM any more. */
  readonly look: () => Promise<TapNow | undefined>;
}

/** See above. */
export class FollowedCapture implements NetworkCapture {
  readonly ended: Promise<CaptureResult>;
  readonly #o: FollowOptions;
  readonly #target: CaptureTarget;
  readonly #over: AbortController;
  #now: PacketCapture;
  /** What {@link #now} captures. */
  #at: TapNow;
  #reason: CaptureEnd | undefined;
  /** Of the lives before this one. */
  #before: CaptureStats = { packets: 0, bytes: 0 };
  #dropped: number | undefined = 0;
  readonly #onAbort = () => this.#end('closed');

  /** As {@link PacketCapture.start}, of the tap that there is now. */
  static async start(o: FollowOptions): Promise<FollowedCapture> {
    o.signal?.throwIfAborted();
    const target = await openTarget(o.target, o.section);
    const over = new AbortController();
    try {
      const signal = AbortSignal.any([over.signal, ...(o.signal === undefined ? [] : [o.signal])]);
      const first = await PacketCapture.start({ ...o, ...partOf(target, over), signal });
      return new FollowedCapture(o, { target, over, first });
    } catch (error) {
      await target.discard();
      throw error;
    }
  }

  private constructor(
    o: FollowOptions,
    begun: { target: CaptureTarget; over: AbortController; first: PacketCapture },
  ) {
    this.#o = o;
    this.#target = begun.target;
    this.#over = begun.over;
    this.#now = begun.first;
    this.#at = { tap: o.tap, loan: o.loan };
    o.signal?.addEventListener('abort', this.#onAbort, { once: true });
    if (o.signal?.aborted === true) this.#onAbort();
    this.ended = this.#run();
  }

  get stats(): CaptureStats {
    const { packets, bytes } = this.#now.stats;
    return { packets: this.#before.packets + packets, bytes: this.#before.bytes + bytes };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#end('closed');
    await this.ended;
  }

  /** The first reason counts. */
  #end(reason: CaptureEnd): void {
    this.#reason ??= reason;
    this.#over.abort(new Error('the capture is over'));
  }

  /** Never rejects. */
  async #run(): Promise<CaptureResult> {
    const { durationMs, signal, vmId } = this.#o;
    const timer =
      durationMs === undefined ? undefined : setTimeout(() => this.#end('duration'), durationMs);
    let last = await this.#lives().catch((error: unknown) => ({
      reason: 'failed' as const,
      error,
    }));
    clearTimeout(timer);
    signal?.removeEventListener('abort', this.#onAbort);
    await this.#target.close().catch((error: unknown) => (last = { reason: 'failed', error }));
    const reason = last.reason === 'closed' ? (this.#reason ?? last.reason) : last.reason;
    const result = { ...this.stats, reason, dropped: this.#dropped };
    const error = last.error as Error | undefined;
    events.emit('network.captured', { vmId, ...result, error: error?.message });
    return { ...result, error };
  }

  /** @returns how the last one ended */
  async #lives(): Promise<{ reason: CaptureEnd; error?: unknown }> {
    for (;;) {
      const { reason, dropped, error } = await this.#life();
      this.#dropped =
        dropped === undefined || this.#dropped === undefined ? undefined : this.#dropped + dropped;
      if (reason !== 'vm-ended') return { reason, error };
      const before = this.stats;
      const next = await this.#next();
      if (next === undefined) return { reason: this.#over.signal.aborted ? 'closed' : reason };
      this.#before = before;
      this.#now = next;
    }
  }

  /** The one that runs now, to its end. */
  async #life(): Promise<CaptureResult> {
    const over = new AbortController();
    this.#now.endWith(this.#tapLost(over.signal));
    try {
      return await this.#now.ended;
    } finally {
      over.abort();
    }
  }

  /** Resolves when the VM has its tap no more: tcpdump sees nothing of that where the tap stays. */
  async #tapLost(signal: AbortSignal): Promise<void> {
    const { tap, loan } = this.#at;
    for (;;) {
      await delay(LOOK_MS, undefined, { signal }).catch(() => undefined);
      if (signal.aborted) return;
      const found = await this.#o.look().catch(() => this.#at); // the next look may tell
      if (found?.tap !== tap || found?.loan !== loan) return;
    }
  }

  /** @returns undefined: it is over, or the VM is gone. @throws what `PacketCapture.start` throws, again and again */
  async #next(): Promise<PacketCapture | undefined> {
    const { signal } = this.#over;
    for (let failures = 0; ;) {
      const found = signal.aborted ? undefined : await this.#o.look();
      if (found === undefined || signal.aborted) return undefined;
      const { tap, loan } = found;
      if (tap !== undefined && (await isOwnAndUp({ ...this.#o, tap }))) {
        try {
          const next = await PacketCapture.start({ ...this.#o, tap, ...this.#rest() });
          this.#at = { tap, loan };
          return next;
        } catch (error) {
          failures += 1; // it may have gone again
          if (failures === MAX_FAILURES) throw error;
        }
      } else failures = 0;
      await delay(POLL_MS, undefined, { signal }).catch(() => undefined);
    }
  }

  #rest() {
    const maxBytes = this.#o.maxBytes - this.stats.bytes;
    return { ...partOf(this.#target, this.#over), maxBytes, isFirst: false };
  }
}

/** The target is ours: no part ends it, and none has bounds of its own but on its size. */
function partOf(target: CaptureTarget, { signal }: AbortController) {
  const stays = () => Promise.resolve();
  const into: CaptureTarget = {
    write: (bytes, over) => target.write(bytes, over),
    close: stays,
    discard: stays,
  };
  return { into, signal, durationMs: undefined };
}
