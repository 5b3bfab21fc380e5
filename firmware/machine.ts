/**
 * What each QEMU machine type offers a guest of ours. Facts only; the argv builder in `src/vm`
 * turns them into arguments, the init into modules to load.
 */

/** QEMU machine types that we support. */
export type MachineType = 'q35' | 'microvm';

/** What a machine type offers. */
export interface MachineFacts {
  readonly type: MachineType;
  /**
   * Value of `-machine` without the accelerator: type and the switches that take away what our
   * guests do not use.
   */
  readonly machineArg: string;
  /** Bus of the virtio devices. */
  readonly bus: 'pci' | 'mmio';
  /** What follows the virtio device's name: `virtio-blk-pci` or `virtio-blk-device`. */
  readonly virtioSuffix: 'pci' | 'device';
  /** Virtio devices that can be attached at most (microvm: mmio transports; q35: slots of the root bus). */
  readonly maxVirtioDevices: number;
  /** Whether a device can be added while the guest runs. */
  readonly hotplug: boolean;
  /** Device that reports a kernel panic to QEMU (`GUEST_PANICKED`); undefined where there is none. */
  readonly pvpanicDevice: 'pvpanic-pci' | 'pvpanic' | undefined;
  /** Whether `-device vmgenid` works, by which a guest learns that it was cloned. */
  readonly vmgenid: boolean;
  /** Whether `system_powerdown` reaches the guest (ACPI power button). */
  readonly powerButton: boolean;
}

const FACTS: Readonly<Record<MachineType, MachineFacts>> = {
  q35: {
    type: 'q35',
    machineArg: 'q35,usb=off,smbus=off,sata=off,graphics=off,vmport=off,dump-guest-core=off',
    bus: 'pci',
    virtioSuffix: 'pci',
    maxVirtioDevices: 28,
    hotplug: true,
    pvpanicDevice: 'pvpanic-pci',
    vmgenid: true,
    powerButton: true,
  },
  microvm: {
    type: 'microvm',
    machineArg:
      'microvm,acpi=on,pcie=off,usb=off,rtc=on,pit=off,pic=off,isa-serial=on,auto-kernel-cmdline=off,dump-guest-core=off',
    bus: 'mmio',
    virtioSuffix: 'device',
    maxVirtioDevices: 8,
    hotplug: false,
    pvpanicDevice: undefined,
    vmgenid: false,
    powerButton: true,
  },
};

/** What this machine type offers. */
export function machineFacts(type: MachineType): MachineFacts {
  return FACTS[type];
}
