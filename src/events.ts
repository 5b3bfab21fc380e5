import { EventEmitter } from 'node:events';

/** Fields that every event has. */
interface Stamp {
  /** When it happened, ISO 8601 with milliseconds, host clock. */
  readonly time: string;
  /** The VM it belongs to, where there is one. */
  readonly vmId?: string | undefined;
}

/**
 * Why a VM leaves its pool: the lease said so (`destroyed`), its strategy makes a new one for each use
 * (`used`), its user left behind what no reset undoes (`unclean`), or what the name says.
 */
export type PoolRemovalReason =
  | 'destroyed'
  | 'used'
  | 'unclean'
  | 'reset-failed'
  | 'unhealthy'
  | 'died'
  | 'expired'
  | 'surplus'
  | 'closed';

/** What each event carries besides its {@link Stamp}. Secrets never stand in an event. */
export interface EventPayloads {
  'vm.created': {
    image: string;
    accel: string;
    machine: string;
    vcpus: number;
    memoryMib: number;
    name?: string | undefined;
    persistent: boolean;
  };
  'vm.started': { pid: number; spawnMs: number };
  'vm.ready': { readyMs: number; channel: 'vsock' | 'virtio-serial' };
  'vm.state': { from: string; to: string };
  'vm.stopped': { reason: 'shutdown' | 'killed' | 'suspended' | 'guest' | 'died' | 'panic' };
  /** `pausedMs`: how long its vCPUs had stood still when all was saved. */
  'vm.suspended': { savedBytes: number; durationMs: number; pausedMs: number };
  /** Memory and devices of a suspended VM are back; its vCPUs run next. */
  'vm.loaded': { loadMs: number };
  'vm.removed': { leftovers: number };
  'image.build.started': { image: string; steps: number };
  'image.build.step': { image: string; step: string; index: number; steps: number };
  'image.build.finished': { image: string; durationMs: number; cached: boolean };
  'image.build.failed': { image: string; step: string; error: string };
  'image.imported': { image: string; format: string; durationMs: number };
  'image.removed': { image: string };
  'exec.started': { execId: string; pid: number; command: string; user: string };
  'exec.finished': {
    execId: string;
    exitCode?: number | undefined;
    signal?: string | undefined;
    durationMs: number;
    timedOut: boolean;
    isCanceled: boolean;
    stdoutBytes: number;
    stderrBytes: number;
  };
  'snapshot.created': { name: string; sizeBytes: number; durationMs: number };
  /** `loadMs`: until memory, devices and disk were back; `durationMs`: until the agent answered, too. */
  'snapshot.restored': { name: string; loadMs: number; durationMs: number };
  'snapshot.deleted': { name: string; durationMs: number };
  'pool.created': { pool: string; strategy: string; minSize: number; maxSize: number };
  /** A VM stands ready: `made` new, `reset` after use. */
  'pool.vm-ready': { pool: string; by: 'made' | 'reset'; durationMs: number };
  /** `hit`: it was ready; else the caller waited for it. */
  'pool.acquired': { pool: string; hit: boolean; waitedMs: number };
  'pool.released': { pool: string; heldMs: number };
  /** A VM leaves the pool. `error` where something went wrong with it. */
  'pool.vm-removed': { pool: string; reason: PoolRemovalReason; error?: string | undefined };
  /** No VM could be made; the next attempt follows after `retryMs`. */
  'pool.source-failed': { pool: string; failures: number; retryMs: number; error: string };
  /** VMs can be made again. */
  'pool.source-recovered': { pool: string; failures: number };
  'pool.draining': { pool: string; leased: number; waiting: number };
  'pool.closed': { pool: string };
  /** `pausedMs`: how long the vCPUs of the VM that was frozen stood still. */
  'template.created': { template: string; usedBytes: number; durationMs: number; pausedMs: number };
  'template.removed': { template: string };
  /** `readyMs`: from the call until it was a machine of its own. */
  'vm.cloned': { template: string; readyMs: number };
  /**
   * `children`: their ids; `pausedMs`: from when what ran in the original stood still until it went on;
   * `readyMs`: from the call until all children were machines of their own.
   */
  'vm.forked': { children: readonly string[]; pausedMs: number; readyMs: number };
  /**
   * A VM looked up a name. `rcode`: the reply's code; `rule`: what decided; `addresses`: what it was told,
   * or would have been; `lost`: how many such events of this VM were left out before this one, because
   * there were too many.
   */
  'dns.query': {
    name: string;
    recordType: string;
    verdict: 'answered' | 'refused' | 'limited' | 'rebinding' | 'failed';
    rcode: string;
    rule?: string | undefined;
    addresses?: readonly string[] | undefined;
    error?: string | undefined;
    durationMs: number;
    lost: number;
  };
  /** A capture of packets is over; `reason`: `CaptureEnd`. `dropped`: those that we were too slow for, where it is known. */
  'network.captured': {
    packets: number;
    bytes: number;
    dropped?: number | undefined;
    reason: string;
    error?: string | undefined;
  };
  'guest.connected': { agentVersion: string; channel: 'vsock' | 'virtio-serial' };
  'guest.disconnected': { reason: string };
  'fault.guest-protocol': { message: string };
  'fault.guest-panic': { panic: string };
  'fault.qemu-died': { exitCode?: number | undefined; signal?: string | undefined; stderr: string };
  'host.warning': { code: string; message: string; hint?: string | undefined };
  'gc.reaped': { kind: string; path: string };
  /** Only while something subscribed to traces (`--trace`): full transcripts. */
  'trace.argv': { argv: readonly string[] };
  'trace.qmp': { direction: 'in' | 'out'; line: string };
  'trace.agent': { direction: 'in' | 'out'; line: string };
}

export type EventType = keyof EventPayloads;

/** One thing that happened. */
export type SystemEvent = {
  [T in EventType]: { readonly type: T } & Stamp & Readonly<EventPayloads[T]>;
}[EventType];

/** The event of one type. */
export type EventOf<T extends EventType> = Extract<SystemEvent, { type: T }>;

/** Which transcripts `--trace` may ask for. */
export type TraceKind = 'qmp' | 'argv' | 'agent';

/**
 * The one stream on which everything is announced, once. The log subscribes to it, as do the audit
 * log, metrics and anomaly detection. A listener that throws is the listener's bug and never
 * reaches the part that announced.
 */
export class EventStream {
  readonly #emitter = new EventEmitter({ captureRejections: false }).setMaxListeners(0);
  readonly #traces = new Set<TraceKind>();

  /** Announces an event; stamps it with the time. */
  emit<T extends EventType>(
    type: T,
    payload: EventPayloads[T] & { vmId?: string | undefined },
  ): void {
    const event = { ...payload, type, time: new Date().toISOString() };
    for (const listener of this.#emitter.listeners('event')) {
      try {
        (listener as (event: unknown) => void)(event);
      } catch (error) {
        process.emitWarning(error instanceof Error ? error : String(error));
      }
    }
  }

  /** Subscribes; the returned function unsubscribes. */
  subscribe(listener: (event: SystemEvent) => void): () => void {
    this.#emitter.on('event', listener);
    return () => {
      this.#emitter.off('event', listener);
    };
  }

  /** Asks for full transcripts of these kinds. Off by default: they cost time and memory. */
  enableTraces(kinds: Iterable<TraceKind>): void {
    for (const kind of kinds) this.#traces.add(kind);
  }

  /** Whether transcripts of this kind are wanted; announcers ask before they format one. */
  traces(kind: TraceKind): boolean {
    return this.#traces.has(kind);
  }
}

/** The process-wide stream. Everything announces here. */
export const events = new EventStream();
