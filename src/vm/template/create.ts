/** Making a template: a VM that boots once, is provisioned and warmed up, and is frozen then. */
import { readFile } from 'node:fs/promises';
import { resolvePaths } from '../../config/paths.ts';
import { DEFAULT_CONFIG } from '../../config/schema.ts';
import { events } from '../../events.ts';
import type { CreateStep, VmCreateOptions } from '../api.ts';
import { newVmId } from '../ids.ts';
import { ensureStateDirs, STATE_SCHEMA, writeWhole } from '../state-dir.ts';
import { Vm } from '../vm.ts';
import { freezeVm, type Frozen } from './freeze.ts';
import { checkMemoryDir, linkMemory } from './memory-dir.ts';
import { sha256, templateFiles, type TemplateManifest } from './manifest.ts';
import { TemplateStore } from './store.ts';
import type { TemplateInfo } from './types.ts';

const MIB = 2 ** 20;

/** Steps of {@link createTemplate}, in order. */
export type TemplateStep = CreateStep | 'provision' | 'warm' | 'freeze';

/** What a template is made of. */
export interface TemplateCreateOptions extends Omit<
  VmCreateOptions,
  'name' | 'cid' | 'hostname' | 'pcap' | 'persistent' | 'onProgress'
> {
  /** Text of a shell script that runs as root, by `/bin/sh -e`. Default: none. */
  provision?: string | undefined;
  /** A shell line that runs as the image's user, to warm up what clones will use. Default: none. */
  warm?: string | undefined;
  /**
   * Directory for its memory: on a tmpfs, hugetlbfs or another disk. Must exist. Default: that of the
   * template.
   */
  memoryDir?: string | undefined;
  /** Replaces a template of that name that no VM stands on. Default false. */
  replace?: boolean | undefined;
  onProgress?: ((step: TemplateStep) => void) | undefined;
  /** Told what provisioning and warming up print. */
  onOutput?: ((text: string) => void) | undefined;
}

/**
 * Makes a template: boots the image, provisions it, warms it up, freezes it.
 * @throws ConfigError the name is taken or none; CommandExitError `provision` or `warm` failed; what
 *   `Vm.create` throws; HostError ERR_HOST_DISK_FULL, ERR_HOST_PERMISSION. Nothing is left of it then
 */
export async function createTemplate(
  name: string,
  o: TemplateCreateOptions = {},
): Promise<TemplateInfo> {
  const startedAt = performance.now();
  const { provision, warm, memoryDir, replace = false, onProgress, onOutput, ...vmOptions } = o;
  const print = { onStdout: onOutput, onStderr: onOutput, signal: o.signal, timeoutMs: 0 };
  const paths = o.paths ?? resolvePaths();
  const store = new TemplateStore(paths);
  if (replace) store.dirOf(name);
  else await store.requireFree(name);
  await ensureStateDirs(paths);
  const memoryMib = o.memoryMib ?? DEFAULT_CONFIG.vm.memoryMib;
  if (memoryDir !== undefined) await checkMemoryDir(memoryDir, memoryMib * MIB);
  const id = newVmId();
  await using vm = await Vm.create({ ...vmOptions, persistent: false, onProgress });
  if (provision !== undefined) {
    onProgress?.('provision');
    await vm.commands.run(['/bin/sh', '-e', '-s'], { ...print, user: 'root', stdin: provision });
  }
  onProgress?.('warm');
  if (warm !== undefined) await vm.commands.run(warm, print);
  // What every command needs is in memory then, and compiled in the agent: with stdin, and without.
  await vm.commands.run(['true'], print);
  await vm.commands.run(['true'], { ...print, stdin: '' });
  onProgress?.('freeze');
  await using workshop = await store.openWorkshop(id);
  const memoryPath = memoryDir && (await linkMemory(workshop.dir, memoryDir, id));
  const frozen = await freezeVm(vm.inside, workshop.dir, { signal: o.signal, memoryPath });
  await writeManifest({ dir: workshop.dir, name, id, frozen });
  await store.publish(name, workshop.dir, { signal: o.signal, replace });
  const info = await store.inspect(name);
  const durationMs = Math.round(performance.now() - startedAt);
  const { pausedMs } = frozen;
  const { usedBytes } = info;
  events.emit('template.created', { template: name, usedBytes, durationMs, pausedMs });
  return info;
}

async function writeManifest(o: {
  dir: string;
  name: string;
  id: string;
  frozen: Frozen;
}): Promise<void> {
  const { config, accel, ports, qemuVersion, cpu, backingPaths, memoryBytes } = o.frozen;
  const files = templateFiles(o.dir);
  const manifest: TemplateManifest = {
    schema: STATE_SCHEMA,
    ...{ name: o.name, id: o.id, createdAt: new Date().toISOString(), config },
    ...{ accel, ports, qemuVersion, cpu, backingPaths, memoryBytes },
    stateSha256: sha256(await readFile(files.statePath)),
  };
  await writeWhole(files.manifestPath, manifest);
}
