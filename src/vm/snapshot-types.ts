/** What `vm.snapshots` takes and gives. Types only. */
import type { WaitOptions } from './wait-options.ts';

/** One snapshot: memory, devices and disk of a VM at one instant. */
export interface SnapshotInfo {
  /** Unique in its VM. */
  readonly name: string;
  readonly description: string | undefined;
  /** ISO 8601, host clock. */
  readonly createdAt: string;
  /** Bytes of memory and device state. The disk's share is what the guest has written over since. */
  readonly sizeBytes: number;
}

/** Options of {@link SnapshotsApi.create}. */
export interface SnapshotCreateOptions extends WaitOptions {
  /** One line of at most 256 characters. Default: none. */
  description?: string | undefined;
}

/**
 * Snapshots in place: they stand in the VM's own disk and go with it. All calls need a VM whose QEMU
 * runs; `timeoutMs` is 120 000 by default.
 */
export interface SnapshotsApi {
  /**
   * Takes a snapshot. The vCPUs stand still meanwhile, and the guest's page cache is a part of the
   * memory that is saved, so memory and disk fit each other and no file system has to be frozen. The
   * guest's clock is set right afterwards. QEMU lets the vCPUs run again by itself, also where this
   * process dies.
   * @param name letters, digits, `.`, `_`, `-`, the first a letter. Default: `s` and the time
   * @throws ConfigError a name or description that cannot be, or a name that is taken
   * @throws StateError, HostError (ERR_HOST_DISK_FULL), DiskQuotaError, QmpError, TimeoutError
   */
  create(name?: string, o?: SnapshotCreateOptions): Promise<SnapshotInfo>;
  /**
   * Puts memory, devices and disk back. What waited for the guest fails with `VmRestoredError`. Before
   * it returns, the agent has answered anew, the guest's random generator has got fresh entropy and its
   * clock is right; where that fails the VM is left paused. A VM that is paused stays so, and has
   * all this done when it is resumed.
   * @throws NotFoundError no such snapshot
   * @throws StateError, GuestConnectError (the VM is paused then), QmpError, TimeoutError
   */
  restore(name: string, o?: WaitOptions): Promise<void>;
  /** All snapshots there are in the VM's disk, oldest first. @throws StateError */
  list(o?: WaitOptions): Promise<SnapshotInfo[]>;
  /** Deletes a snapshot. @throws NotFoundError, StateError, QmpError, TimeoutError */
  delete(name: string, o?: WaitOptions): Promise<void>;
}
