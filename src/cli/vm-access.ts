/** The way from commands to VMs and images. */
import type { ResolvedPaths } from '../config/paths.ts';
import type { ImageStore } from '../image/index.ts';
import type { VmCreateOptions, VmInstance, VmStatics } from '../vm/api.ts';
import type { CliContext } from './context.ts';

/** Loads the `Vm` class: QEMU, QMP and all that. */
export async function loadVm(): Promise<VmStatics> {
  const { Vm } = await import('../vm/vm.ts');
  return Vm;
}

/** The images that `state.dataDir` holds. */
export async function openImages(context: CliContext): Promise<ImageStore> {
  return openImageStore(context.paths);
}

/** As {@link openImages}, for commands that have no loaded configuration. */
export async function openImageStore(paths: ResolvedPaths): Promise<ImageStore> {
  const store = await import('../vm/image-store.ts');
  return store.openImageStore(paths);
}

/** What a new VM is to be, from the configuration. */
export function vmOptions(context: CliContext, name: string | undefined): VmCreateOptions {
  const { vm, qemu } = context.config;
  return {
    paths: context.paths,
    signal: context.signal,
    timeoutMs: vm.readyTimeoutMs,
    image: vm.image,
    vcpus: vm.vcpus,
    memoryMib: vm.memoryMib,
    diskMib: vm.diskMib,
    accel: vm.accel,
    machine: vm.machine,
    channel: vm.channel,
    qemuPath: qemu.path,
    name,
  };
}

/** Takes up a VM by id, prefix or name. @throws NotFoundError */
export async function connectVm(context: CliContext, idOrName: string): Promise<VmInstance> {
  const Vm = await loadVm();
  return Vm.connect(idOrName, { paths: context.paths, signal: context.signal });
}
