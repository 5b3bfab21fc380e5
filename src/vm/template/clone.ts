/** A new VM that goes on from where a template stands. */
import { TemplateError } from '../../errors.ts';
import { events } from '../../events.ts';
import { checkReach, resolveEgress } from '../../network/index.ts';
import { createOverlay } from '../../storage/index.ts';
import { probeKvm } from '../accel.ts';
import type { StatePaths, VmCloneOptions } from '../api.ts';
import {
  announceVm,
  beginVm,
  enterVm,
  firstRecord,
  launchAndBoot,
  Releaser,
  type CreatedVm,
} from '../create.ts';
import type { FileLock } from '../file-lock.ts';
import { reapAbandoned, removeVm } from '../gc.ts';
import type { VmConfig, VmRecord } from '../record.ts';
import { step } from '../../steps.ts';
import {
  checkCloneOptions,
  checkLan,
  hostnameFrom,
  impliedNetwork,
  quotaBytesOf,
} from '../vm-config.ts';
import { vmPaths } from '../vm-paths.ts';
import { differenceOf, madeHere } from './fit.ts';
import { templateFiles, type TemplateManifest } from './manifest.ts';
import { requirePagesForClone } from './memory-dir.ts';
import { becomeOwn } from './own.ts';
import { TemplateStore, type Template } from './store.ts';

/** A clone answers within a second; a host that swaps may take long. */
const TIMEOUT_MS = 30_000;
const MIB = 2 ** 20;

/** Makes a clone. See `VmStatics.fromTemplate`. */
export async function cloneVm(name: string, o: VmCloneOptions): Promise<CreatedVm> {
  const startedAt = performance.now();
  const deadline = startedAt + (o.timeoutMs ?? TIMEOUT_MS);
  checkCloneOptions(o);
  const { paths, id } = await beginVm(o);
  await Promise.all([probeKvm(), reapAbandoned(paths)]);
  await using lock = new Releaser();
  try {
    step('clone', 'enter', id);
    // It may ask clients for their settings: not while the templates are locked.
    const options = o.egress === undefined ? o : { ...o, egress: await resolveEgress(o.egress) };
    const { dir, record: first, held } = await enter(paths, { name, id, options });
    lock.held = held;
    step('clone', 'disk', id);
    o.onProgress?.('disk');
    const files = templateFiles(dir);
    await requirePagesForClone(files.memoryPath, first.config.memoryMib * MIB);
    await createOverlay({
      path: vmPaths(paths, id).diskPath,
      backing: files.diskPath,
      signal: o.signal,
    });
    announceVm(first);
    o.onProgress?.('launch');
    const { config } = first;
    const { live, record } = await launchAndBoot({
      ...{ operation: 'clone', paths, record: first, from: files, deadline, signal: o.signal },
      onProgress: o.onProgress,
      pcap: o.pcap,
      ready: (clone, bounds) =>
        becomeOwn(clone, bounds, {
          config,
          hint: 'Try again; if it stays so, create the template anew.',
        }),
    });
    const readyMs = Math.round(performance.now() - startedAt);
    events.emit('vm.cloned', { vmId: id, template: name, readyMs });
    return { paths, record, live };
  } catch (error) {
    await removeVm(paths, id).catch(() => undefined);
    throw error;
  }
}

/** Writes the clone down before anybody could remove the template from under it. */
async function enter(
  paths: StatePaths,
  { name, id, options }: { name: string; id: string; options: VmCloneOptions },
): Promise<{ dir: string; record: VmRecord; held: FileLock }> {
  const store = new TemplateStore(paths);
  await using _held = await store.lock(options);
  const template = await store.get(name);
  const cloned = cloneConfig(template, id, options);
  const config = {
    ...cloned,
    lan: checkLan(cloned.network, options.lan),
    egress: options.egress ?? template.manifest.config.egress,
    publish: options.publish,
    ipv6: cloneIpv6(cloned.network, options.ipv6 ?? template.manifest.config.ipv6),
  };
  if (config.network === 'nat-filtered')
    checkReach(config.egress ?? {}, { hasIpv6: config.ipv6 === true });
  await requireFit(template, config.qemuPath);
  const record = firstRecord(id, options.name, config);
  return { dir: template.dir, record, held: await enterVm(paths, record) };
}

function cloneConfig({ manifest, dir }: Template, id: string, o: VmCloneOptions): VmConfig {
  const { config, accel, ports, backingPaths } = manifest;
  return {
    ...config,
    accel,
    cid: o.cid,
    network: cloneNetwork(manifest, o),
    diskQuotaBytes: quotaBytesOf(o) ?? config.diskQuotaBytes,
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

/** Of another network it has none, whatever its template had. */
function cloneIpv6(network: VmConfig['network'], wanted: boolean | undefined): VmConfig['ipv6'] {
  return network === 'nat-filtered' && wanted === true ? true : undefined;
}

/** @throws TemplateError it has no device for it */
function cloneNetwork({ name, config }: TemplateManifest, o: VmCloneOptions): VmConfig['network'] {
  const wanted = o.network ?? impliedNetwork(o);
  if (config.network !== undefined) return wanted ?? config.network;
  if (wanted === undefined || wanted === 'isolated') return undefined;
  const what = 'a network device, and was made when VMs had none';
  throw new TemplateError('ERR_TEMPLATE_MISMATCH', `template ${name} is without ${what}`, {
    hint: `Create it again: \`qmp-agent template create ${name} --force\`.`,
  });
}

async function requireFit({ manifest }: Template, qemuPath: string): Promise<void> {
  const { name, accel } = manifest;
  const differs = differenceOf(manifest, await madeHere({ qemuPath, accel }));
  if (differs === undefined) return;
  throw new TemplateError('ERR_TEMPLATE_MISMATCH', `template ${name} was made with ${differs}`, {
    hint: `Create it again here: \`qmp-agent template create ${name} --force\`.`,
  });
}
