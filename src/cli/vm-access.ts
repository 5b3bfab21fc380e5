/** The way from commands to VMs and images. */
import type { ResolvedPaths } from '../config/paths.ts';
import type { ImageStore } from '../image/index.ts';
import type { VmCloneOptions, VmCreateOptions, VmInstance, VmStatics } from '../vm/api.ts';
import type { TemplateStore } from '../vm/template/store.ts';
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

/** The templates that `state.dataDir` holds. */
export async function openTemplates(context: CliContext): Promise<TemplateStore> {
  const { TemplateStore: Store } = await import('../vm/template/store.ts');
  return new Store(context.paths);
}

/** What a new VM is to be, from the configuration. */
export function vmOptions(context: CliContext, name: string | undefined): VmCreateOptions {
  return { ...machineOptions(context), name };
}

/** As {@link vmOptions}, for what has a name by other means. */
export function machineOptions(context: CliContext) {
  const { vm, qemu, network } = context.config;
  return {
    paths: context.paths,
    signal: context.signal,
    timeoutMs: vm.readyTimeoutMs,
    image: vm.image,
    vcpus: vm.vcpus,
    memoryMib: vm.memoryMib,
    diskMib: vm.diskMib,
    diskQuotaMib: vm.diskQuotaMib,
    accel: vm.accel,
    machine: vm.machine,
    channel: vm.channel,
    network: vm.network,
    defaultNetwork: network.default,
    qemuPath: qemu.path,
  };
}

/** What a clone is to be, from the configuration; the rest is the template's. */
export function cloneOptions(context: CliContext, name: string | undefined): VmCloneOptions {
  const { paths, signal, config } = context;
  const { readyTimeoutMs: timeoutMs, diskQuotaMib, network } = config.vm;
  return { paths, signal, timeoutMs, diskQuotaMib, network, qemuPath: config.qemu.path, name };
}

/** Takes up a VM by id, prefix or name. @throws NotFoundError */
export async function connectVm(context: CliContext, idOrName: string): Promise<VmInstance> {
  const Vm = await loadVm();
  return Vm.connect(idOrName, { paths: context.paths, signal: context.signal });
}

/** Does something with a VM that is taken up for it. @throws NotFoundError; what `use` throws */
export async function withVm<T>(
  context: CliContext,
  idOrName: string,
  use: (vm: VmInstance) => Promise<T>,
): Promise<T> {
  const vm = await connectVm(context, idOrName);
  try {
    return await use(vm);
  } finally {
    await vm.close();
  }
}
