/** What parts of a VM (`vm.snapshots`, resume) need of the `Vm` that they belong to. */
import type { VmState, WaitOptions } from './api.ts';
import type { LiveVm } from './live-vm.ts';
import type { RecordChange, RecordedState, VmConfig, VmRecord, VmRun } from './record.ts';
import type { VmPaths } from './vm-paths.ts';

/** The inside of one VM. */
export interface VmInside {
  readonly id: string;
  readonly files: VmPaths;
  readonly config: VmConfig;
  /** Last known. */
  readonly state: VmState;
  /** As the record has it; fresh inside {@link exclusively}. */
  readonly run: VmRun | undefined;
  /** The QEMU that runs now. @throws StateError none does */
  takeUp(): Promise<LiveVm>;
  /**
   * Does something that changes the VM's state, under the machine lock, with the QEMU that runs now.
   * Pauses that happen on the way do not show.
   * @throws StateError the VM is in none of the states
   */
  exclusively<T>(
    states: readonly VmState[],
    o: WaitOptions,
    work: (live: LiveVm) => Promise<T>,
  ): Promise<T>;
  /** Writes down the state and what has changed about this life of QEMU; inside {@link exclusively}. */
  note(state: RecordedState, change?: Partial<VmRun>): Promise<void>;
  /** As the record is; fresh inside {@link exclusively}. */
  readonly record: VmRecord;
  /**
   * Writes down what has changed, so that it outlives the host's power. `suspended` and `detail` stand
   * for one state each: what is not given is gone.
   */
  write(change: RecordChange): Promise<void>;
  /** QEMU has ended: its connections and sockets go. */
  letGo(): Promise<void>;
}
