/** What a VM can reach, and what it takes for that: a device, and what its guest is told. */
import type { NetworkSpec } from '../../guest-agent/protocol.ts';
import type { VmNetwork } from '../../nft/index.ts';
import { events } from '../events.ts';
import { GATEWAY_MAC, TAP_PREFIX } from './endpoint.ts';
import { macOf, type NicConfig } from './nic.ts';

/**
 * - `isolated`: nothing at all
 * - `nat-filtered`: what its policy allows, by a tap of its own
 * - `user`: QEMU's user-mode network, which filters nothing
 */
export type NetworkMode = 'isolated' | 'nat-filtered' | 'user';

/** All modes. */
export const NETWORK_MODES: readonly NetworkMode[] = ['isolated', 'nat-filtered', 'user'];

/** What a mode means for one VM. */
export interface NetworkPlan {
  readonly nic: NicConfig;
  /** Told to its agent. Undefined: nothing, as its interface is down and stays so. */
  readonly guest: NetworkSpec | undefined;
}

/** QEMU's own defaults (net/slirp.c): one guest, its gateway, its name server; nobody else is there. */
const USER_ADDRESS = { address: '10.0.2.15', prefix: 24, gateway: '10.0.2.2', dns: ['10.0.2.3'] };

/**
 * What a VM of this mode has. Pure.
 * @param place its tap, once it has one
 */
export function planNetwork(mode: NetworkMode, vmId: string, place?: VmNetwork): NetworkPlan {
  const mac = macOf(vmId);
  switch (mode) {
    case 'isolated':
      return { nic: { mac, netdev: { kind: 'none' } }, guest: undefined };
    case 'nat-filtered':
      return place === undefined
        ? { nic: { mac, netdev: { kind: 'none' } }, guest: undefined }
        : { nic: { mac, netdev: { kind: 'tap', ifname: place.tap } }, guest: guestOf(place) };
    case 'user':
      return {
        nic: { mac, netdev: { kind: 'user' } },
        guest: { up: true, mac, ...USER_ADDRESS },
      };
  }
}

/** The other end of the tap is its gateway and its name server, whose MAC it need not ask for. */
function guestOf({ mac, guestAddress, gatewayAddress }: VmNetwork): NetworkSpec {
  return {
    up: true,
    mac,
    address: guestAddress,
    prefix: TAP_PREFIX,
    gateway: gatewayAddress,
    gatewayMac: GATEWAY_MAC,
    dns: [gatewayAddress],
  };
}

let warned = false;

/** Announces once a process that nothing stands between such a guest and what the host can reach. */
export function warnAboutUserMode(): void {
  if (warned) return;
  warned = true;
  events.emit('host.warning', {
    code: 'network.user',
    message:
      'the network "user" filters nothing: the guest reaches all that the host does, the services on the host’s own loopback (by 10.0.2.2), the local network and the cloud’s metadata included',
    hint: 'Use it for guests that you trust; others get --network isolated.',
  });
}
