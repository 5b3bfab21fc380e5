/** A new VM that goes on from where a template stands. */
import { resolvePaths } from '../../config/paths.ts';
import { TemplateError } from '../../errors.ts';
import { events } from '../../events.ts';
import { createOverlay } from '../../storage/index.ts';
import { probeKvm } from '../accel.ts';
import type { StatePaths, VmCloneOptions } from '../api.ts';
import { enterVm, launchAndBoot, Releaser, type CreatedVm } from '../create.ts';
import { reapAbandoned, removeVm } from '../gc.ts';
import { newVmId } from '../ids.ts';
import { findQemu } from '../launcher.ts';
import { ownIdentity } from '../process-identity.ts';
import type { VmConfig, VmRecord } from '../record.ts';
import { ensureStateDirs, STATE_SCHEMA } from '../state-dir.ts';
import { checkCloneOptions, hostnameFrom } from '../vm-config.ts';
import { checkSocketPaths, vmPaths } from '../vm-paths.ts';
import { hostCpu } from './host-cpu.ts';
import { templateFiles } from './manifest.ts';
import { becomeOwn } from './own.ts';
import { TemplateStore, type Template } from './store.ts';

/** A clone answers within a second; a host that swaps may take long. */
const TIMEOUT_MS = 30_000;

/** Makes a clone. See `VmStatics.fromTemplate`. */
export async function cloneVm(name: string, o: VmCloneOptions): Promise<CreatedVm> {
  const startedAt = performance.now();
  const deadline = startedAt + (o.timeoutMs ?? TIMEOUT_MS);
  checkCloneOptions(o);
  const paths = o.paths ?? resolvePaths();
  const id = newVmId();
  checkSocketPaths(paths, id);
  o.signal?.throwIfAborted();
  await ensureStateDirs(paths);
  o.onProgress?.('image');
  await Promise.all([probeKvm(), reapAbandoned(paths)]);
  const store = new TemplateStore(paths);
  await using lock = new Releaser();
  try {
    const { template, record } = await enter(paths, store, { name, id, o, lock });
    o.onProgress?.('disk');
    const files = templateFiles(template.dir);
    await createOverlay({
      path: vmPaths(paths, id).diskPath,
      backing: files.diskPath,
      signal: o.signal,
    });
    const { image, machine, vcpus, memoryMib, persistent, accel, hostname } = record.config;
    events.emit('vm.created', {
      ...{ vmId: id, image, accel, machine, vcpus, memoryMib, persistent, name: o.name },
    });
    o.onProgress?.('launch');
    const { live, record: final } = await launchAndBoot({
      ...{ paths, record, from: files, deadline, signal: o.signal, onProgress: o.onProgress },
      settle: (clone) => becomeOwn(clone, { id, hostname, persistent, deadline, signal: o.signal }),
    });
    const readyMs = Math.round(performance.now() - startedAt);
    events.emit('vm.cloned', { vmId: id, template: name, readyMs });
    return { paths, record: final, live };
  } catch (error) {
    await removeVm(paths, id).catch(() => undefined);
    throw error;
  }
}

/** Writes the clone down before anybody could remove the template from under it. */
async function enter(
  paths: StatePaths,
  store: TemplateStore,
  o: { name: string; id: string; o: VmCloneOptions; lock: Releaser },
): Promise<{ template: Template; record: VmRecord }> {
  await using _held = await store.lock(o.o);
  const template = await store.get(o.name);
  const config = cloneConfig(template, o.id, o.o);
  await requireFit(template, config.qemuPath);
  const record: VmRecord = {
    schema: STATE_SCHEMA,
    id: o.id,
    name: o.o.name,
    createdAt: new Date().toISOString(),
    owner: config.persistent ? undefined : ownIdentity(),
    config,
    state: 'starting',
  };
  o.lock.held = await enterVm(paths, record);
  return { template, record };
}

function cloneConfig({ manifest, dir }: Template, id: string, o: VmCloneOptions): VmConfig {
  const { config, accel, ports, backingPaths } = manifest;
  return {
    ...config,
    accel,
    cid: o.cid,
    hostname: o.hostname ?? hostnameFrom(o.name ?? id),
    qemuPath: o.qemuPath ?? config.qemuPath,
    persistent: o.persistent ?? false,
    template: {
      name: manifest.name,
      id: manifest.id,
      diskPaths: [templateFiles(dir).diskPath, ...backingPaths],
      ports,
    },
  };
}

/** The devices' state of one QEMU, or processor, means nothing to another. */
async function requireFit({ manifest }: Template, qemuPath: string): Promise<void> {
  const { name, accel } = manifest;
  const [{ version }, cpu] = await Promise.all([findQemu(qemuPath), hostCpu(accel)]);
  const differs =
    version !== manifest.qemuVersion
      ? `QEMU ${manifest.qemuVersion}, and this is QEMU ${version}`
      : cpu !== manifest.cpu
        ? `the processor ${manifest.cpu ?? '?'}, and this is ${cpu ?? '?'}`
        : undefined;
  if (differs === undefined) return;
  throw new TemplateError('ERR_TEMPLATE_MISMATCH', `template ${name} was made with ${differs}`, {
    hint: `Create it again here: \`qmp-agent template create ${name} --force\`.`,
  });
}
