/** A VM's network, as its record says, and what its guest is told of it. Pure. */
import type { NetworkSpec } from '../../guest-agent/protocol.ts';
import { planNetwork, type NetworkPlan } from '../network/mode.ts';
import type { VmConfig } from './record.ts';

/** Undefined: it was made when VMs had no network device. */
export function networkOf(id: string, { network }: VmConfig): NetworkPlan | undefined {
  return network === undefined ? undefined : planNetwork(network, id);
}

/** What the agent is told of the network; undefined where there is nothing to tell. */
export function guestNetworkOf(id: string, config: VmConfig): NetworkSpec | undefined {
  return networkOf(id, config)?.guest;
}
