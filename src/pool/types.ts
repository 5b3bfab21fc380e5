/** What `VmPool` takes and gives. Types only. */
import type { Vm, VmCreateOptions, WaitOptions } from '../vm/index.ts';

/**
 * How a used VM becomes a new one.
 * - `clone`: it is thrown away, and another one is cloned from the same template
 * - `savevm`: a snapshot that was taken before anybody used it is restored in place
 * - `recreate`: it is thrown away, and another one boots
 */
export type PoolStrategy = 'clone' | 'savevm' | 'recreate';

/** What a pool's VMs are made of: what `Vm.create` takes, but for what belongs to one VM only. */
export type PoolVmOptions = Omit<
  VmCreateOptions,
  'name' | 'hostname' | 'cid' | 'lan' | 'pcap' | 'persistent' | 'onProgress' | 'signal'
>;

/** How large a pool is, and how it is kept well. */
export interface PoolSizeOptions {
  /** Names the pool in errors and events. Default `pool-1`, `pool-2`, … */
  name?: string | undefined;
  /** VMs there are at least, whether anybody asks for them or not. 0–1000. Default 1. */
  minSize?: number | undefined;
  /** VMs there are at most, leased ones too. 1–1000, at least `minSize`. Default 4, or `minSize`. */
  maxSize?: number | undefined;
  /** A VM older than this is replaced, when nobody uses it. ms, at least 1000. Default 3 600 000. */
  maxAgeMs?: number | undefined;
  /**
   * A VM beyond what is needed goes after it has been idle for so long; bursts are remembered for so
   * long. ms, at least 100. Default 60 000.
   */
  idleTimeoutMs?: number | undefined;
  /** Each idle VM's agent is pinged this often. ms, at least 100. Default 30 000. */
  healthIntervalMs?: number | undefined;
  /**
   * MiB that one VM is counted with. Default: all that it could use, its memory and some 200 MiB for QEMU.
   * Less where it is known that VMs use, or share, less.
   */
  countedMemoryMib?: number | undefined;
}

/** Options of `VmPool.create`. `timeoutMs`, `signal`: until `minSize` VMs are ready; default 120 000 each. */
export interface PoolOptions extends PoolSizeOptions, WaitOptions {
  /** Default: `clone` where there is a `template`, else `savevm`. */
  strategy?: PoolStrategy | undefined;
  /** Name of the template of which all VMs are clones. Only for the strategy `clone`, which needs it. */
  template?: string | undefined;
  /**
   * Default: what `Vm.create` makes by itself. Of clones, `paths`, `qemuPath` and `timeoutMs` alone: the rest
   * is the template's.
   */
  vm?: PoolVmOptions | undefined;
  /**
   * Done to each new VM before it is offered, and before its snapshot is taken: a checkout, a server that
   * shall run. It has as long as the VM has to start.
   */
  prepare?: ((vm: Vm, signal: AbortSignal) => Promise<void>) | undefined;
}

/** Options of `pool.acquire`. */
export interface AcquireOptions {
  /** ms to wait at most. Default 120 000. */
  timeoutMs?: number | undefined;
  /** Ends the wait. */
  signal?: AbortSignal | undefined;
}

/** A VM in the hands of one user, until it is given back. Best by `await using`, which releases it. */
export interface VmLease extends AsyncDisposable {
  /**
   * The VM. After the lease's end every call on it, on its `commands` and on their handles fails with
   * `PoolLeaseError`. Do not close it.
   */
  readonly vm: Vm;
  /**
   * Gives the VM back, to be made as new behind the caller's back: nothing is waited for. What still runs
   * in it ends. Idempotent.
   */
  release(): Promise<void>;
  /** Gives the VM back to be thrown away, and waits until it is gone. Idempotent. */
  destroy(): Promise<void>;
}

/** A pool at one instant, and what it has counted since it was made. */
export interface PoolStats {
  /** VMs there are, without those being made: idle, leased, being reset or removed. */
  readonly size: number;
  /** Ready to be acquired. */
  readonly idle: number;
  readonly leased: number;
  /** Callers who wait for a VM. */
  readonly waiting: number;
  /** VMs on their way up. */
  readonly making: number;
  /** VMs that are being made as new. */
  readonly resetting: number;
  /** Acquires that were served at once. */
  readonly hits: number;
  /** Acquires that were served after a wait. */
  readonly misses: number;
  /** Acquires whose time was over. */
  readonly timeouts: number;
  /** VMs made. */
  readonly made: number;
  /** VMs that left the pool, for any reason. */
  readonly removed: number;
  /** Used VMs made as new in place. */
  readonly resets: number;
  /** VMs that could not be made or reset, were found dead, or died. */
  readonly failures: number;
  /** ms from acquire to lease, over the last 1,024; undefined before the first. */
  readonly acquireMs:
    { readonly p50: number; readonly p95: number; readonly p99: number } | undefined;
}

/** Where a pool's VMs come from. */
export interface VmSource {
  /** Shown in events. */
  readonly strategy: string;
  /** What one VM could use of the host's memory at most. */
  readonly bytesPerVm: number;
  /** Makes a VM that is as new, and has run a command already, so that the next one is a warm one. */
  create(signal: AbortSignal): Promise<Vm>;
  /**
   * Makes a used VM as new again; rejects where there is any doubt that it is, and the pool destroys it.
   * Missing where each VM is used once: then the pool destroys it anyway.
   */
  readonly reset?: ((vm: Vm, signal: AbortSignal) => Promise<void>) | undefined;
}
