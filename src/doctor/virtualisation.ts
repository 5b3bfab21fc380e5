/** CPU, /dev/kvm, /dev/vhost-vsock, /dev/net/tun. */
import { openError } from '../host-files.ts';
import { readText } from './probe.ts';
import { ok, warn, type Check } from './types.ts';

/** What decides. Errors are errno names; undefined: it opens. */
export interface VirtualisationFacts {
  readonly cpuinfo: string | undefined;
  readonly kvm: string | undefined;
  readonly vsock: string | undefined;
  readonly tun: string | undefined;
}

/** Looks at the host. */
export async function probeVirtualisation(): Promise<VirtualisationFacts> {
  const [cpuinfo, kvm, vsock, tun] = await Promise.all([
    readText('/proc/cpuinfo'),
    openError('/dev/kvm'),
    openError('/dev/vhost-vsock'),
    openError('/dev/net/tun'),
  ]);
  return { cpuinfo, kvm, vsock, tun };
}

/** Judges. Without KVM all works, some ten times slower; so none of these is a failure. */
export function judgeVirtualisation(facts: VirtualisationFacts): Check[] {
  const extension = /^flags\s*:.*\b(vmx|svm)\b/m.exec(facts.cpuinfo ?? '')?.[1];
  return [
    extension === undefined
      ? warn(
          'cpu.virtualisation',
          'the CPU shows neither vmx nor svm: VMs run under software emulation',
          'enable VT-x or AMD-V in the firmware; inside a VM, ask its provider for nested virtualisation',
        )
      : ok('cpu.virtualisation', `the CPU has ${extension}`),
    device('kvm.device', '/dev/kvm', facts.kvm, {
      missing: `modprobe ${extension === 'svm' ? 'kvm_amd' : 'kvm_intel'}; without it VMs run some ten times slower`,
      denied: 'usermod -aG kvm "$USER", then log in anew',
    }),
    device('vsock.device', '/dev/vhost-vsock', facts.vsock, {
      missing:
        'modprobe vhost_vsock (and: echo vhost_vsock > /etc/modules-load.d/vhost_vsock.conf); without it virtio-serial is used',
      denied: 'usermod -aG kvm "$USER", then log in anew; without it virtio-serial is used',
    }),
    device('tun.device', '/dev/net/tun', facts.tun, {
      missing: 'modprobe tun; VMs do without a network until then',
      denied: 'run as root where VMs are to have a network',
    }),
  ];
}

function device(
  id: string,
  path: string,
  error: string | undefined,
  fixes: { missing: string; denied: string },
): Check {
  switch (error) {
    case undefined:
      return ok(id, `${path} opens`);
    case 'ENOENT':
      return warn(id, `${path} does not exist`, fixes.missing);
    case 'EACCES':
    case 'EPERM':
      return warn(id, `no permission to open ${path}`, fixes.denied);
    default:
      // ENODEV, ENXIO: a node without its module.
      return warn(id, `${path} does not open (${error})`, fixes.missing);
  }
}
