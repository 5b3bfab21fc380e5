/** A VM's network device, and what QEMU joins to its other end. Pure. */

/** The other end of the device. */
export type NetdevConfig =
  /** Nothing: what the guest sends goes nowhere. */
  | { readonly kind: 'none' }
  /** QEMU's user-mode network (slirp): what the guest asks for, QEMU does as a process of the host. */
  | { readonly kind: 'user' }
  /** A tap that is there already. */
  | { readonly kind: 'tap'; readonly ifname: string };

/**
 * The device. Each VM has one, whatever it is joined to, as a clone's machine has to look like its
 * template's, and may have another network.
 */
export interface NicConfig {
  /** What the guest finds; see {@link macOf}. */
  readonly mac: string;
  readonly netdev: NetdevConfig;
}

/**
 * The MAC address of a VM: its id, made a unicast address of local administration (IEEE 802, 8.1). So no
 * two VMs of a host have the same, and nothing has to be written down.
 */
export function macOf(vmId: string): string {
  const bytes = Buffer.from(vmId, 'hex');
  bytes.writeUInt8((bytes.readUInt8(0) & 0xfc) | 0x02, 0);
  return [...bytes].map((byte) => byte.toString(16).padStart(2, '0')).join(':');
}
