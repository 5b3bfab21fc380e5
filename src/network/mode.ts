/** What a VM can reach, and what it takes for that: a device, and what its guest is told. */
import type { NetworkSpec } from '../../guest-agent/protocol.ts';
import type { VmNetwork } from '../../nft/index.ts';
import { PLAIN_MODES } from '../config/network-modes.ts';
import { ConfigError } from '../errors.ts';
import { warnOnce } from '../host-warning.ts';
import { GATEWAY_MAC, TAP_PREFIX } from './endpoint.ts';
import { TAP_PREFIX6 } from './ula.ts';
import { parseLan, type LanOptions } from './lan.ts';
import { macOf, type NicConfig } from './nic.ts';

/**
 * - `isolated`: nothing at all
 * - `nat-filtered`: what its policy allows, by a tap of its own
 * - `user`: QEMU's user-mode network, which filters nothing
 * - `bridge=NAME`: all that a port of this bridge of the host does; it can be nobody but itself there
 */
export type NetworkMode = (typeof PLAIN_MODES)[number] | BridgeMode;

/** A bridge of the host by its name. */
export type BridgeMode = `bridge=${string}`;

const BRIDGE = 'bridge=';
/** A name that Linux takes for an interface, of letters that need no quotes anywhere (IFNAMSIZ). */
const INTERFACE = /^[A-Za-z0-9_][A-Za-z0-9_.-]{0,14}$/;

/** @throws ConfigError it is none */
export function checkNetworkMode(value: NetworkMode): NetworkMode {
  const bridge = bridgeOf(String(value)); // JavaScript may give anything
  const modes: readonly NetworkMode[] = PLAIN_MODES;
  if (bridge === undefined ? modes.includes(value) : INTERFACE.test(bridge)) return value;
  throw new ConfigError(`vm.network is ${JSON.stringify(value)}`, {
    field: 'vm.network',
    value,
    hint: `Give one of ${PLAIN_MODES.join(', ')}, or bridge= and the name of a bridge of this host.`,
  });
}

/** The bridge that a VM is on, by its name; undefined where it is on none. */
export function bridgeOf(mode: string | undefined): string | undefined {
  return mode?.startsWith(BRIDGE) === true ? mode.slice(BRIDGE.length) : undefined;
}

/** Whether a VM of this mode has a tap while it runs. */
export function hasTap(mode: string | undefined): boolean {
  return mode === 'nat-filtered' || bridgeOf(mode) !== undefined;
}

/** What a mode means for one VM. */
export interface NetworkPlan {
  readonly nic: NicConfig;
  /** Told to its agent. Undefined: nothing, as its interface is down and stays so. */
  readonly guest: NetworkSpec | undefined;
}

/** A tap, and what the agent of its VM is told. */
export interface TapPlace {
  readonly tap: string;
  readonly guest: NetworkSpec;
}

/** QEMU's own defaults (net/slirp.c): one guest, its gateway, its name server; nobody else is there. */
const USER_ADDRESS = { address: '10.0.2.15', prefix: 24, gateway: '10.0.2.2', dns: ['10.0.2.3'] };

/**
 * What a VM of this mode has. Pure.
 * @param place its tap, once it has one
 */
export function planNetwork(mode: NetworkMode, vmId: string, place?: TapPlace): NetworkPlan {
  // A tap that was made for some VM or other knows its guest's.
  const mac = (place?.guest.up === true ? place.guest.mac : undefined) ?? macOf(vmId);
  if (mode === 'user') {
    return { nic: { mac, netdev: { kind: 'user' } }, guest: { up: true, mac, ...USER_ADDRESS } };
  }
  return place === undefined || !hasTap(mode)
    ? { nic: { mac, netdev: { kind: 'none' } }, guest: undefined }
    : { nic: { mac, netdev: { kind: 'tap', ifname: place.tap } }, guest: place.guest };
}

/** The other end of the tap is its gateway and its name server, whose MAC it need not ask for. Pure. */
export function placeBehindHost(network: VmNetwork): TapPlace {
  const { tap, mac, guestAddress, gatewayAddress, v6 } = network;
  const gateway = { gateway: gatewayAddress, gatewayMac: GATEWAY_MAC, dns: [gatewayAddress] };
  const guest = { up: true, mac, address: guestAddress, prefix: TAP_PREFIX, ...gateway } as const;
  if (v6 === undefined) return { tap, guest };
  const ends = { address: v6.guestAddress, gateway: v6.gatewayAddress };
  return {
    tap,
    guest: { ...guest, v6: { ...ends, prefix: TAP_PREFIX6, gatewayMac: GATEWAY_MAC } },
  };
}

/** It is what its user says. Pure. @throws ConfigError */
export function placeOnBridge(tap: string, vmId: string, lan: LanOptions): TapPlace {
  return { tap, guest: { mac: macOf(vmId), ...parseLan(lan) } };
}

/** Announces once a process, for each mode that filters nothing or little, what its guests reach. */
export function warnAboutReach(mode: NetworkMode | undefined): void {
  const bridge = bridgeOf(mode);
  if (mode === undefined || (mode !== 'user' && bridge === undefined)) return;
  warnOnce(
    mode,
    bridge === undefined
      ? {
          code: 'network.user',
          message:
            'the network "user" filters nothing: the guest reaches all that the host does, the services on the host’s own loopback (by 10.0.2.2), the local network and the cloud’s metadata included',
          hint: 'Use it for guests that you trust; others get --network isolated.',
        }
      : {
          code: 'network.bridge',
          message: `the network of bridge ${bridge} is not filtered: the guest reaches all that is there, the host included where it has an address on it, and is reached; only frames in another’s name, IPv6 and VLAN tags are dropped`,
          hint: 'Use it for guests that you trust; others get --network nat-filtered.',
        },
  );
}
