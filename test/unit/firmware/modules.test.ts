import { describe, expect, it } from 'vitest';
import { guestModules, loadOrder, moduleName, parseModulesDep } from '../../../firmware/modules.ts';

const DEP = `kernel/fs/ext4/ext4.ko.xz: kernel/fs/jbd2/jbd2.ko.xz kernel/fs/mbcache.ko.xz kernel/lib/crc16.ko.xz
kernel/fs/jbd2/jbd2.ko.xz:
kernel/fs/mbcache.ko.xz:
kernel/lib/crc16.ko.xz:
kernel/net/9p/9pnet.ko.xz: kernel/fs/netfs/netfs.ko.xz
kernel/fs/netfs/netfs.ko.xz:
kernel/fs/9p/9p.ko.xz: kernel/net/9p/9pnet.ko.xz kernel/fs/netfs/netfs.ko.xz
kernel/drivers/char/hw_random/virtio-rng.ko.xz:
kernel/drivers/net/tun.ko.xz:
kernel/drivers/net/ethernet/intel/e1000/e1000.ko.xz:
kernel/drivers/gpu/drm/drm.ko.xz:
kernel/drivers/md/odd.ko.xz: kernel/drivers/gpu/drm/drm.ko.xz
kernel/net/wireless/cfg80211.ko.xz:
kernel/net/netfilter/nf_tables.ko.xz:
`;
const deps = parseModulesDep(DEP);

describe('modules', () => {
  it('reads modules.dep', () => {
    expect(deps.size).toBe(14);
    expect(deps.get('kernel/fs/jbd2/jbd2.ko.xz')).toEqual([]);
    expect(deps.get('kernel/fs/ext4/ext4.ko.xz')).toHaveLength(3);
  });

  it('names modules as the kernel does', () => {
    expect(moduleName('kernel/drivers/char/hw_random/virtio-rng.ko.xz')).toBe('virtio_rng');
    expect(moduleName('kernel/fs/9p/9p.ko')).toBe('9p');
  });

  it('puts what is needed first, and each once', () => {
    expect(loadOrder(deps, ['9p', 'ext4', '9pnet']).map(moduleName)).toEqual([
      'netfs',
      '9pnet',
      '9p',
      'jbd2',
      'mbcache',
      'crc16',
      'ext4',
    ]);
  });

  it('leaves out what the kernel has built in, and takes both spellings', () => {
    expect(loadOrder(deps, ['virtio_pci', 'virtio-rng']).map(moduleName)).toEqual(['virtio_rng']);
  });

  it('ends on a circle', () => {
    const circle = parseModulesDep('a.ko: b.ko\nb.ko: a.ko\n');
    expect(loadOrder(circle, ['a'])).toEqual(['b.ko', 'a.ko']);
  });

  it('keeps what a guest can use, with what that needs, and drops hardware drivers', () => {
    const kept = guestModules(deps).map(moduleName);
    expect(kept).toEqual(expect.arrayContaining(['tun', 'nf_tables', 'ext4', '9p', 'virtio_rng']));
    expect(kept).not.toContain('e1000');
    expect(kept).not.toContain('cfg80211');
    expect(kept).toContain('drm'); // only because odd needs it
  });
});
