import { describe, expect, it } from 'vitest';
import type { NetdevConfig } from '../../../src/network/nic.ts';
import { buildArgv, escapeValue, optionList, type MachineConfig } from '../../../src/vm/argv.ts';

const config: MachineConfig = {
  id: '0123456789ab',
  machine: 'q35',
  accel: 'tcg',
  vcpus: 1,
  memoryMib: 512,
  start: {
    kind: 'cold',
    kernelPath: '/img/vmlinux',
    initramfsPath: '/cache/initramfs.cpio',
    cmdline: 'console=ttyS0 quiet',
  },
  disk: {
    path: '/vms/1/disk.qcow2',
    backingPaths: ['/img/rootfs.qcow2'],
    aio: 'threads',
    disposable: true,
  },
  channel: { kind: 'virtio-serial', socketPaths: ['/run/1/ch0.sock'] },
  qmpSocketPath: '/run/1/qmp.sock',
  monitorSocketPath: '/run/1/monitor.sock',
  consoleSocketPath: '/run/1/console.sock',
  consoleLogPath: '/vms/1/console.log',
};

/** Values that follow an option, in order. */
const valuesOf = (argv: readonly string[], option: string): string[] =>
  argv.flatMap((word, index) => (word === option ? [argv[index + 1] ?? ''] : []));

describe('buildArgv', () => {
  it('is, for q35 under TCG with virtio-serial, exactly this', () => {
    expect(buildArgv(config)).toEqual([
      '-nodefaults',
      '-no-user-config',
      '-display',
      'none',
      '-no-reboot',
      '-name',
      'qmp-agent-0123456789ab',
      '-sandbox',
      'on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny',
      '-machine',
      'q35,usb=off,smbus=off,sata=off,graphics=off,vmport=off,dump-guest-core=off,memory-backend=ram',
      '-accel',
      'tcg,tb-size=128',
      '-cpu',
      'max,-erms,-fsrm,-la57',
      '-smp',
      '1,sockets=1,cores=1,threads=1',
      '-m',
      '512M',
      '-object',
      'memory-backend-ram,id=ram,size=512M',
      '-kernel',
      '/img/vmlinux',
      '-initrd',
      '/cache/initramfs.cpio',
      '-append',
      'console=ttyS0 quiet',
      '-chardev',
      'socket,id=qmp,path=/run/1/qmp.sock,server=on,wait=off',
      '-mon',
      'chardev=qmp,mode=control',
      '-chardev',
      'socket,id=monitor,path=/run/1/monitor.sock,server=on,wait=off',
      '-mon',
      'chardev=monitor,mode=control',
      '-chardev',
      'socket,id=console,path=/run/1/console.sock,server=on,wait=off,logfile=/vms/1/console.log,logappend=on',
      '-serial',
      'chardev:console',
      '-blockdev',
      'driver=file,node-name=base0-file,filename=/img/rootfs.qcow2,aio=threads,discard=unmap,read-only=on,cache.no-flush=on',
      '-blockdev',
      'driver=qcow2,node-name=base0,file=base0-file,read-only=on,cache.no-flush=on',
      '-blockdev',
      'driver=file,node-name=disk-file,filename=/vms/1/disk.qcow2,aio=threads,discard=unmap,read-only=off,cache.no-flush=on',
      '-blockdev',
      'driver=qcow2,node-name=disk,file=disk-file,backing=base0,discard=unmap,read-only=off,cache.no-flush=on',
      '-device',
      'virtio-blk-pci,id=disk0,drive=disk,werror=enospc,rerror=report',
      '-object',
      'rng-builtin,id=rng',
      '-device',
      'virtio-rng-pci,id=rng0,rng=rng',
      '-device',
      'virtio-serial-pci,id=channels,max_ports=2',
      '-chardev',
      'socket,id=ch0,path=/run/1/ch0.sock,server=on,wait=off',
      '-device',
      'virtserialport,id=port0,bus=channels.0,nr=1,chardev=ch0,name=org.qmp-agent.channel.0',
      '-device',
      'pvpanic-pci',
      '-device',
      'vmgenid,guid=auto',
    ]);
  });

  describe('the network device', () => {
    const mac = '02:23:45:67:89:ab';
    const lastOf = (machine: 'q35' | 'microvm', netdev: NetdevConfig) => {
      const argv = buildArgv({ ...config, machine, nic: { mac, netdev } });
      return argv.slice(argv.lastIndexOf(machine === 'q35' ? 'vmgenid,guid=auto' : '-device') - 2);
    };

    it('is the last, joined to nothing', () => {
      expect(lastOf('q35', { kind: 'none' })).toEqual([
        'pvpanic-pci',
        '-device',
        'vmgenid,guid=auto',
        '-device',
        `virtio-net-pci,id=nic0,mac=${mac},romfile=,guest_announce=off`,
      ]);
    });

    it('is joined to the user-mode network, without IPv6', () => {
      expect(lastOf('q35', { kind: 'user' }).slice(3)).toEqual([
        '-netdev',
        'user,id=net0,ipv6=off',
        '-device',
        `virtio-net-pci,id=nic0,netdev=net0,mac=${mac},romfile=,guest_announce=off`,
      ]);
    });

    it('is joined to a tap, and has no more to offer than without', () => {
      expect(lastOf('microvm', { kind: 'tap', ifname: 'qa-1,2' })).toEqual([
        '-netdev',
        'tap,id=net0,ifname=qa-1,,2,script=no,downscript=no,vhost=off,vnet_hdr=off',
        '-device',
        `virtio-net-device,id=nic0,netdev=net0,mac=${mac},guest_announce=off`,
      ]);
    });
  });

  it('has mmio devices, and none that needs PCI, for microvm', () => {
    const argv = buildArgv({ ...config, machine: 'microvm' });
    const devices = valuesOf(argv, '-device').map((value) => value.split(',', 1)[0]);
    expect(devices).toEqual([
      'virtio-blk-device',
      'virtio-rng-device',
      'virtio-serial-device',
      'virtserialport',
    ]);
    expect(argv.join(' ')).not.toMatch(/pci(?!e=off)/);
  });

  it('takes the host’s processor under KVM', () => {
    const argv = buildArgv({ ...config, accel: 'kvm', vcpus: 4 });
    expect(valuesOf(argv, '-accel')).toEqual(['kvm']);
    expect(valuesOf(argv, '-cpu')).toEqual(['host']);
    expect(valuesOf(argv, '-smp')).toEqual(['4,sockets=1,cores=4,threads=1']);
  });

  it('runs several emulated processors in one thread, as guests that patch their code need', () => {
    expect(valuesOf(buildArgv({ ...config, vcpus: 2 }), '-accel')).toEqual([
      'tcg,thread=single,tb-size=128',
    ]);
  });

  it('has one vsock device and no serial ports on a host with vsock', () => {
    const argv = buildArgv({ ...config, channel: { kind: 'vsock', cid: 77 } });
    expect(valuesOf(argv, '-device')).toContain('vhost-vsock-pci,id=vsock0,guest-cid=77');
    expect(argv.join(' ')).not.toContain('virtio-serial');
  });

  it('has a port for each channel socket', () => {
    const socketPaths = ['/run/1/ch0.sock', '/run/1/ch1.sock', '/run/1/ch2.sock'];
    const argv = buildArgv({ ...config, channel: { kind: 'virtio-serial', socketPaths } });
    const ports = valuesOf(argv, '-device').filter((value) => value.startsWith('virtserialport'));
    expect(ports.map((port) => /nr=\d+,chardev=\w+/.exec(port)?.[0])).toEqual([
      'nr=1,chardev=ch0',
      'nr=2,chardev=ch1',
      'nr=3,chardev=ch2',
    ]);
    expect(valuesOf(argv, '-device')).toContain('virtio-serial-pci,id=channels,max_ports=4');
  });

  it('flushes a disk that outlives its VM', () => {
    const disk = { ...config.disk, disposable: false };
    expect(buildArgv({ ...config, disk }).join(' ')).not.toContain('no-flush=on');
  });

  it('puts a file of a fixed size under a disk with a quota', () => {
    const disk = { ...config.disk, boundBytes: 2 ** 30 };
    expect(valuesOf(buildArgv({ ...config, disk }), '-blockdev').slice(-2)).toEqual([
      'driver=raw,node-name=disk-bound,file=disk-file,size=1073741824,discard=unmap,cache.no-flush=on',
      expect.stringMatching(/^driver=qcow2,node-name=disk,file=disk-bound,backing=base0,/),
    ]);
  });

  it('doubles commas in paths, so that no path can smuggle in an option', () => {
    const argv = buildArgv({
      ...config,
      disk: { ...config.disk, path: '/vms/a,read-only=on/disk.qcow2' },
      qmpSocketPath: '/run/a,wait=on/qmp.sock',
      consoleLogPath: '/vms/a,logappend=off/console.log',
    });
    const text = argv.join(' ');
    expect(text).toContain('filename=/vms/a,,read-only=on/disk.qcow2,aio=threads');
    expect(text).toContain('path=/run/a,,wait=on/qmp.sock,server=on');
    expect(text).toContain('logfile=/vms/a,,logappend=off/console.log,logappend=on');
  });
});

describe('optionList', () => {
  it('writes booleans as on and off, and leaves out what is undefined', () => {
    expect(optionList('x', { a: true, b: false, c: undefined, d: 0, e: '' })).toBe(
      'x,a=on,b=off,d=0,e=',
    );
  });

  it.each([
    ['plain', 'plain'],
    ['a,b', 'a,,b'],
    [',,', ',,,,'],
    ['a=b c', 'a=b c'],
  ])('escapes %j as %j', (value, escaped) => {
    expect(escapeValue(value)).toBe(escaped);
    expect(optionList('x', { v: value })).toBe(`x,v=${escaped}`);
  });

  it('maps the memory of a template and waits for its state, over a chain of disks', () => {
    const start = { kind: 'clone', memoryPath: '/t/memory', readOnlyMemory: false } as const;
    const disk = { ...config.disk, backingPaths: ['/t/disk.qcow2', '/img/rootfs.qcow2'] };
    const argv = buildArgv({ ...config, start, disk });
    expect(valuesOf(argv, '-object')[0]).toBe(
      'memory-backend-file,id=ram,size=512M,mem-path=/t/memory,share=off',
    );
    expect(valuesOf(argv, '-incoming')).toEqual(['defer']);
    expect(argv).not.toContain('-kernel');
    expect(valuesOf(argv, '-blockdev').map((word) => word.replace(/,discard.*/, ''))).toEqual([
      expect.stringContaining('node-name=base0-file,filename=/img/rootfs.qcow2'),
      expect.stringContaining('node-name=base0,file=base0-file,read-only=on'),
      expect.stringContaining('node-name=base1-file,filename=/t/disk.qcow2'),
      expect.stringContaining('node-name=base1,file=base1-file,backing=base0,read-only=on'),
      expect.stringContaining('node-name=disk-file,filename=/vms/1/disk.qcow2'),
      'driver=qcow2,node-name=disk,file=disk-file,backing=base1',
    ]);
  });

  it('opens the memory of a template for reading only, where QEMU can', () => {
    const start = { kind: 'clone', memoryPath: '/t/memory', readOnlyMemory: true } as const;
    expect(valuesOf(buildArgv({ ...config, start }), '-object')[0]).toMatch(
      /share=off,readonly=on,rom=off$/,
    );
  });
});
