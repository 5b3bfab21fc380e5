/** The parts of a VM that have names of their own: `vm.snapshots`, `vm.network`. */
import type { NetworkApi } from './network-types.ts';
import type { SnapshotsApi } from './snapshot-types.ts';
import { Snapshots } from './snapshots.ts';
import type { VmInside } from './vm-inside.ts';
import { VmNetworkControl } from './vm-network.ts';

/** Does nothing yet: each works when it is asked to. */
export function partsOf(vm: VmInside): { snapshots: SnapshotsApi; network: NetworkApi } {
  return { snapshots: new Snapshots(vm), network: new VmNetworkControl(vm) };
}
