/**
 * Which kernel modules an initramfs needs and in which order they are loaded. Pure: works on the
 * text of `modules.dep` (modules.dep(5)).
 */
/** `modules.dep`: path of a module → paths of what it needs, as depmod wrote them. */
export type ModuleDeps = ReadonlyMap<string, readonly string[]>;

/** Module groups that the init loads, each where the VM has use for it. */
export type ModuleGroup =
  'root' | 'pci' | 'mmio' | 'rng' | 'vsock' | 'net' | '9p' | 'pvpanic' | 'button';

/**
 * Modules of each group by name. What a kernel has built in is not in modules.dep and is left out;
 * Debian 13's has virtio_pci, virtio_console, pvpanic's core and vmgenid built in.
 */
export const MODULE_GROUPS: Readonly<Record<ModuleGroup, readonly string[]>> = {
  pci: ['virtio_pci'],
  mmio: ['virtio_mmio'],
  // ext4 asks for crc32c by the crypto API's name, which modules.dep does not know
  root: ['virtio_blk', 'crc32c_generic', 'ext4'],
  vsock: ['vmw_vsock_virtio_transport'],
  net: ['virtio_net'],
  '9p': ['9pnet_virtio', '9p'],
  rng: ['virtio_rng'],
  button: ['button', 'evdev'],
  pvpanic: ['pvpanic_pci', 'pvpanic_mmio'],
};

/** Reads `modules.dep`. */
export function parseModulesDep(text: string): ModuleDeps {
  const deps = new Map<string, readonly string[]>();
  for (const line of text.split('\n')) {
    const colon = line.indexOf(':');
    if (colon <= 0) continue;
    const needs = line.slice(colon + 1).trim();
    deps.set(line.slice(0, colon), needs === '' ? [] : needs.split(/\s+/));
  }
  return deps;
}

/** The module's name as the kernel knows it: `kernel/fs/ext4/ext4.ko.xz` → `ext4`. */
export function moduleName(path: string): string {
  const base = path.slice(path.lastIndexOf('/') + 1);
  return base.replace(/\.ko(\.\w+)?$/, '').replaceAll('-', '_');
}

/**
 * Paths in loading order: what a module needs comes before it, each once. Names that `modules.dep`
 * does not know are built into the kernel and are left out.
 */
export function loadOrder(deps: ModuleDeps, names: readonly string[]): string[] {
  const byName = new Map([...deps.keys()].map((path) => [moduleName(path), path]));
  const order: string[] = [];
  const visiting = new Set<string>();
  const visit = (path: string): void => {
    if (visiting.has(path)) return;
    visiting.add(path);
    for (const needed of deps.get(path) ?? []) visit(needed);
    order.push(path);
  };
  for (const name of names) {
    const path = byName.get(name.replaceAll('-', '_'));
    if (path !== undefined) visit(path);
  }
  return order;
}

/** Below `kernel/`: what a guest in a VM can have use for. The rest drives hardware it never sees. */
const GUEST_TREES: readonly RegExp[] = [
  /^kernel\/(arch|block|crypto|fs|lib|mm|security|virt)\//,
  /^kernel\/net\/(?!(wireless|mac80211|mac802154|ieee802154|6lowpan|bluetooth|nfc|can|rfkill|atm|ax25|netrom|rose|hsr|batman-adv|tipc|rds|smc|sunrpc\/xprtrdma|qrtr|mctp|phonet|caif|lapb|x25|appletalk)\/)/,
  /^kernel\/drivers\/(block|char|crypto\/virtio|md|nvdimm|dax|vhost|vdpa|virtio|virt|ptp|acpi|misc\/pvpanic|iommu|vfio)\//,
  /^kernel\/drivers\/net\/([^/]+\.ko[^/]*$|(bonding|ipvlan|team|vxlan|wireguard|ppp|slip|ovpn)\/)/,
  /^kernel\/drivers\/(scsi\/(virtio_scsi|scsi_mod|sd_mod|sr_mod|sg)|cdrom\/)/,
];

/** The modules that go into an image, so that `modprobe` works there for common things: paths of modules.dep. */
export function guestModules(deps: ModuleDeps): string[] {
  const wanted = [...deps.keys()].filter((path) => GUEST_TREES.some((tree) => tree.test(path)));
  return loadOrder(deps, wanted.map(moduleName));
}
