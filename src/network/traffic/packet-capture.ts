/**
 * All packets of one tap as they pass it, by tcpdump, whose stream goes through our hands: only so is what a guest
 * floods us with bounded, and cut between two packets. Nobody but us reads the pipe, so where we are slow tcpdump
 * waits, and the kernel drops and counts what it has no room for.
 */
import { once } from 'node:events';
import { HostError, NetworkSetupError, StateError, TimeoutError } from '../../errors.ts';
import { events } from '../../events.ts';
import { findProgram } from '../../host-files.ts';
import { userOf } from '../lent/lent-taps.ts';
import { ifindexOf, lookAtTap } from '../tap.ts';
import type {
  CaptureConfig,
  CaptureEnd,
  CaptureResult,
  CaptureStats,
  NetworkCapture,
} from './capture-options.ts';
import { openTarget, type CaptureTarget } from './capture-target.ts';
import { PcapReader } from './pcap.ts';
import { startTcpdump, type Tcpdump } from './tcpdump.ts';

/** It takes some 30 ms. */
const START_MS = 10_000;
/**
 * What the kernel keeps while we are busy: 1,024 packets, as each has a place for the largest that there may be (64 KiB
 * with `--immediate-mode`); of tcpdump's own 2 MiB it were 32. With a smaller `snaplen` it is more, 32,768 of 1,600 bytes.
 */
const BUFFER_KIB = 64 * 1024;
/** After QEMU's end, for packets that are in the kernel's buffer yet: as a rule the tap goes sooner, and tcpdump with it. */
const DRAIN_MS = 300;
/** From SIGTERM, or from when we want no more, until tcpdump is killed and nobody waits for the target any longer. */
const STOP_MS = 2_000;
const MAX_STDERR_CHARS = 2_000;

/** What {@link PacketCapture.start} is given. */
export interface PacketCaptureOptions extends CaptureConfig {
  /** Whose packets: the tap has to be this VM's. */
  readonly vmId: string;
  readonly tap: string;
  /** How errors call what was asked for. */
  readonly section: string;
  /** Ends it, also once it runs. */
  readonly signal?: AbortSignal | undefined;
  /** It is a part of a whole, which is written to and told of by who gives this. Default: its own, see `target`. */
  readonly into?: CaptureTarget | undefined;
  /** Whether it is to write the head of the whole. Default true. */
  readonly isFirst?: boolean | undefined;
}

/** With the number of the tap, whose name the VM's next one may have. */
type OfOneTap = PacketCaptureOptions & { readonly ifindex: number };

/** See above. */
export class PacketCapture implements NetworkCapture {
  readonly ended: Promise<CaptureResult>;
  readonly #o: OfOneTap;
  readonly #tcpdump: Tcpdump;
  readonly #target: CaptureTarget;
  readonly #reader: PcapReader;
  /** Nobody waits for the target any longer. */
  readonly #over = new AbortController();
  readonly #timers: NodeJS.Timeout[] = [];
  #packets = 0;
  #bytes = 0;
  #reason: CaptureEnd | undefined;
  #error: Error | undefined;
  #stderr = '';
  #onListening: (() => void) | undefined;
  readonly #onAbort = () => this.#end('closed');

  /**
   * Resolves when no packet passes any more that is not captured.
   * @throws ConfigError the file is there; HostError ERR_HOST_TOOL, ERR_HOST_PERMISSION, ERR_HOST_DISK_FULL;
   *   StateError the VM has no tap any more; NetworkSetupError, TimeoutError; the signal's reason. Nothing is left then
   */
  static async start(o: PacketCaptureOptions): Promise<PacketCapture> {
    o.signal?.throwIfAborted();
    await requireTcpdump();
    const target = o.into ?? (await openTarget(o.target, o.section));
    const { tap: device, snaplen } = o;
    const ifindex = await ifindexOf(device);
    const tcpdump = startTcpdump({ device, snaplen, bufferKib: BUFFER_KIB });
    const capture = new PacketCapture({ ...o, ifindex }, target, tcpdump);
    try {
      await capture.#listening();
    } catch (error) {
      await capture.discard();
      throw error;
    }
    capture.#begun();
    return capture;
  }

  private constructor(o: OfOneTap, target: CaptureTarget, tcpdump: Tcpdump) {
    this.#o = o;
    this.#target = target;
    this.#tcpdump = tcpdump;
    this.#reader = new PcapReader(o.snaplen);
    tcpdump.stderr.setEncoding('utf8');
    tcpdump.stderr.on('data', (text: string) => {
      this.#stderr = (this.#stderr + text).slice(-MAX_STDERR_CHARS);
    });
    tcpdump.on('error', (error) => (this.#stderr += error.message));
    o.signal?.addEventListener('abort', this.#onAbort, { once: true });
    this.ended = this.#pump();
  }

  get stats(): CaptureStats {
    return { packets: this.#packets, bytes: this.#bytes };
  }

  /** Has it end with the VM's QEMU, whose tap may outlive it. */
  endWith(ended: Promise<unknown>): void {
    void ended.then(() => this.#end('vm-ended'));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#end('closed');
    await this.ended;
  }

  /** Ends it, and has it never been: its file goes. */
  async discard(): Promise<void> {
    await this[Symbol.asyncDispose]();
    await this.#target.discard();
  }

  /** @throws what {@link start} throws */
  async #listening(): Promise<void> {
    const late = new TimeoutError(`tcpdump on ${this.#o.tap}`, START_MS);
    const timer = setTimeout(() => this.#end('failed', late), START_MS);
    const listening = new Promise<void>((resolve) => (this.#onListening = resolve));
    const result = await Promise.race([listening, this.ended]);
    clearTimeout(timer);
    this.#o.signal?.throwIfAborted();
    if (result !== undefined) throw result.error ?? tapGone(this.#o.vmId);
  }

  /** Only now is what comes of it no error of its start. */
  #begun(): void {
    const { durationMs, vmId, into } = this.#o;
    const timer =
      durationMs === undefined ? undefined : setTimeout(() => this.#end('duration'), durationMs);
    void this.ended.then(({ error, ...result }) => {
      clearTimeout(timer);
      if (into !== undefined) return;
      events.emit('network.captured', { vmId, ...result, error: error?.message });
    });
  }

  async #pump(): Promise<CaptureResult> {
    const { stdout } = this.#tcpdump;
    const gone = once(this.#tcpdump, 'close').catch(() => undefined);
    try {
      for await (const chunk of stdout) await this.#take(chunk as Buffer);
    } catch (error) {
      this.#end('failed', error as Error);
      stdout.destroy(); // whoever writes to it dies of that
    }
    await gone;
    if (this.#reason === undefined) {
      if (await isThere(this.#o)) this.#end('failed', whyEnded(this.#stderr));
      else this.#end('vm-ended');
    }
    for (const timer of this.#timers) clearTimeout(timer);
    this.#o.signal?.removeEventListener('abort', this.#onAbort);
    await this.#target.close().catch((error: unknown) => {
      this.#reason = 'failed';
      this.#error ??= error as Error;
    });
    const dropped = droppedOf(this.#stderr);
    return { ...this.stats, reason: this.#reason ?? 'failed', dropped, error: this.#error };
  }

  /** Writes what is whole, and fits. */
  async #take(chunk: Buffer): Promise<void> {
    const isFirst = this.#reader.head === undefined;
    const packets = this.#reader.push(chunk);
    const { head } = this.#reader;
    if (head === undefined || this.#reason === 'max-bytes') return;
    if (isFirst) {
      // tcpdump has the interface by now: the VM may have stopped before, and another one have the name.
      if (!(await isThere(this.#o))) throw tapGone(this.#o.vmId);
      this.#onListening?.(); // whoever is to read it may not do so yet
    }
    const parts = isFirst && this.#o.isFirst !== false ? [head] : [];
    let bytes = parts.length * head.length;
    let count = 0;
    for (const { record } of packets) {
      if (this.#bytes + bytes + record.length > this.#o.maxBytes) {
        this.#end('max-bytes');
        break;
      }
      parts.push(record);
      bytes += record.length;
      count += 1;
    }
    if (bytes > 0) await this.#target.write(Buffer.concat(parts), this.#over.signal);
    this.#packets += count;
    this.#bytes += bytes;
  }

  /** Has tcpdump end, which says how much was dropped; the rest is `#pump`'s. The first reason counts. */
  #end(reason: CaptureEnd, error?: Error): void {
    if (this.#reason !== undefined) return;
    this.#reason = reason;
    this.#error = error;
    const drainMs = reason === 'vm-ended' ? DRAIN_MS : 0;
    this.#later(drainMs, () => this.#tcpdump.kill('SIGTERM'));
    this.#later(drainMs + STOP_MS, () => {
      this.#tcpdump.kill('SIGKILL');
      this.#over.abort(new Error('the capture is over'));
    });
  }

  #later(ms: number, action: () => void): void {
    this.#timers.push(setTimeout(action, ms));
  }
}

/** A tap says which VM's it is; one that is borrowed, which user's, who alone has VMs there. */
async function isOwn({ tap, vmId }: Pick<PacketCaptureOptions, 'tap' | 'vmId'>): Promise<boolean> {
  return (await lookAtTap(tap)).owner?.vmId === vmId || (await userOf(tap)) === process.getuid?.();
}

/** Whether it is the very tap that it was when the capture began, and not a later one of the same VM's. */
async function isThere(o: OfOneTap): Promise<boolean> {
  const ifindex = await ifindexOf(o.tap);
  return ifindex !== 0 && ifindex === o.ifindex && (await isOwn(o));
}

/** Whether there is anything to capture. */
export async function isOwnAndUp(o: Pick<PacketCaptureOptions, 'tap' | 'vmId'>): Promise<boolean> {
  return (await lookAtTap(o.tap)).isUp && (await isOwn(o));
}

function tapGone(vmId: string): StateError {
  return new StateError(`VM ${vmId} has no tap any more`, {
    ...{ vmId, actual: 'stopped', required: ['running', 'paused'] },
    hint: `See whether it runs: \`qmp-agent inspect ${vmId}\`.`,
  });
}

const INSTALL = 'Install it: apt-get install tcpdump.';

/** @throws HostError ERR_HOST_TOOL */
async function requireTcpdump(): Promise<void> {
  if ((await findProgram('tcpdump')) !== undefined) return;
  throw new HostError('ERR_HOST_TOOL', 'tcpdump is not installed', { hint: INSTALL });
}

/** From its own words, the statistics of its end apart. Pure. */
function whyEnded(stderr: string): Error {
  const lines = stderr.split('\n').filter((line) => !/^\d+ packets|listening on/.test(line));
  const why =
    lines
      .filter(Boolean)
      .join(' ')
      .replace(/^tcpdump: /, '') || 'it said nothing';
  if (/permission|not permitted/i.test(why)) {
    return new HostError('ERR_HOST_PERMISSION', `this process may not capture packets: ${why}`, {
      hint: 'Run as root, or with CAP_NET_RAW.',
    });
  }
  return new NetworkSetupError(`tcpdump ended: ${why}`, {
    hint: 'See whether the VM still runs, and begin another capture.',
  });
}

/** Undefined where it was killed before it could say. Pure. */
function droppedOf(stderr: string): number | undefined {
  const count = /^(\d+) packets? dropped by kernel/m.exec(stderr)?.[1];
  return count === undefined ? undefined : Number(count);
}
